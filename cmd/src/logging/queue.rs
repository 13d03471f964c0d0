//! The finished lines between everybody who logs and the thread that writes: one buffer, swapped for an empty one when it is written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes waiting at most; lines that do not fit are dropped and counted.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Capacity the buffers keep between writes.
const KEPT_BYTES: usize = 64 << 10;

/// The thread wakes at most this often, for however many lines: a wake and a write per line would cost a shard that logs each
/// connection more than the connection.
const REST: Duration = Duration::from_millis(5);

/// The sending end; clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct LineQueue {
    shared: Arc<Shared>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The buffer is no longer empty, or somebody waits for it to be written.
    changed: Condvar,
    /// [`State::written`] has grown.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Buffers the thread has taken.
    taken: u64,
    /// Buffers it has written.
    written: u64,
    /// Somebody waits: no rest.
    urgent: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it, and lines are worth more than the doubt.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineQueue {
    /// Starts the thread that writes to `out`; it lives as long as the process.
    pub(super) fn start(out: impl Write + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let lines = Arc::clone(&shared);
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&lines, out));
        // Without the thread the buffer fills, further lines count as dropped, and the node goes on.
        drop(writer);
        Self { shared, dropped: Arc::default() }
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Waits until everything queued so far is written, but not longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        let awaited = state.taken + u64::from(!state.lines.is_empty());
        while state.written < awaited {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state.urgent = true;
            self.shared.changed.notify_one();
            (state, _) = self.shared.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn write_lines(shared: &Shared, mut out: impl Write) {
    let mut lines = Vec::new();
    let mut state = shared.lock();
    loop {
        while state.lines.is_empty() {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut lines, &mut state.lines);
        state.taken += 1;
        drop(state);
        // There is nowhere to tell that standard error is broken.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
        lines.clear();
        lines.shrink_to(KEPT_BYTES);
        state = shared.lock();
        state.written += 1;
        shared.written.notify_all();
        let resting = Instant::now();
        while !std::mem::take(&mut state.urgent) && resting.elapsed() < REST {
            let left = REST.saturating_sub(resting.elapsed());
            (state, _) = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        if state.lines.len() + line.len() > WAITING_BYTES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let first = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        drop(state);
        if first {
            self.shared.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LineQueue {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Tells of what it is about to write, and waits for a ticket to do so.
    struct Stuck {
        tickets: Receiver<()>,
        writes: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let _ = self.writes.send(lines.to_vec());
            let _ = self.tickets.recv();
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_terminal_costs_lines_but_never_stops_the_caller() {
        let ((ticket, tickets), (writes, written)) = (channel(), channel());
        let mut queue = LineQueue::start(Stuck { tickets, writes });
        let line = [b'x'; 1024];
        queue.write_all(&line).expect("the queue takes or drops");
        assert_eq!(written.recv().expect("the thread writes").len(), line.len());
        let (fit, extra) = (WAITING_BYTES_MAX / line.len(), 10);
        for _ in 0..fit + extra {
            queue.write_all(&line).expect("the queue takes or drops");
        }
        assert_eq!(queue.dropped().load(Ordering::Relaxed), extra as u64);
        drop(ticket);
        queue.flush(Duration::from_secs(10));
        let later: Vec<usize> = written.try_iter().map(|lines| lines.len()).collect();
        assert_eq!(later, [WAITING_BYTES_MAX], "everything that waited, in one write");
    }

    #[test]
    fn lines_written_in_a_rest_go_out_together_and_a_flush_cuts_the_rest_short() {
        let ((ticket, tickets), (writes, written)) = (channel(), channel());
        drop(ticket);
        let mut queue = LineQueue::start(Stuck { tickets, writes });
        queue.write_all(b"first\n").expect("the queue takes or drops");
        queue.flush(Duration::from_secs(10));
        for line in [&b"second\n"[..], b"third\n"] {
            queue.write_all(line).expect("the queue takes or drops");
        }
        queue.flush(Duration::from_secs(10));
        assert_eq!(written.try_iter().collect::<Vec<_>>().concat(), b"first\nsecond\nthird\n");
    }
}
