//! The queue of finished lines between everybody who logs and the thread that writes.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines waiting at most; beyond it lines are dropped and counted.
const LINES_MAX: usize = 8_192;

/// How long a flush waits before it looks again whether a full queue has room.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// What the writing thread is told.
enum Order {
    Line(Vec<u8>),
    /// Answer when everything before this is written.
    Flush(SyncSender<()>),
}

/// The sending end; clones share the queue.
#[derive(Clone)]
pub(super) struct LineQueue {
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Debug for LineQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineQueue").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl LineQueue {
    /// Starts the thread that writes to `out`; it lives as long as the queue.
    pub(super) fn start(out: impl Write + Send + 'static) -> Self {
        let (orders, inbox) = sync_channel(LINES_MAX);
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&inbox, out));
        // Without the thread the queue's other end is gone, every line counts as dropped, and the node goes on.
        drop(writer);
        Self { orders, dropped: Arc::default() }
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Waits until everything queued so far is written, but not longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (done, written) = sync_channel(1);
        let mut order = Order::Flush(done);
        // A full queue needs time to get room; a queue whose thread has gone never will.
        while let Err(TrySendError::Full(refused)) = self.orders.try_send(order) {
            if Instant::now() >= deadline {
                return;
            }
            order = refused;
            std::thread::sleep(FULL_QUEUE_PAUSE);
        }
        // Late is as good as never: the process is about to exit.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_lines(inbox: &Receiver<Order>, mut out: impl Write) {
    for order in inbox {
        match order {
            // There is nowhere to tell that standard error is broken.
            Order::Line(line) => drop(out.write_all(&line)),
            Order::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.orders.try_send(Order::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
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
    use std::sync::mpsc;

    /// Takes a line only when the test hands it a ticket.
    struct Stuck {
        tickets: Receiver<()>,
        lines: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.tickets.recv();
            let _ = self.lines.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_terminal_costs_lines_but_never_stops_the_caller() {
        let ((ticket, tickets), (lines, written)) = (mpsc::channel(), mpsc::channel());
        let mut queue = LineQueue::start(Stuck { tickets, lines });
        let extra = 10;
        for _ in 0..=LINES_MAX + extra {
            queue.write_all(b"line\n").expect("the queue takes or drops");
        }
        // One line may be in the writer's hands, the queue holds its fill, the rest is counted.
        let dropped = queue.dropped().load(Ordering::Relaxed) as usize;
        assert!((extra..=extra + 1).contains(&dropped), "{dropped}");
        drop(ticket);
        queue.flush(Duration::from_secs(10));
        assert_eq!(written.try_iter().count(), LINES_MAX + extra + 1 - dropped);
    }
}
