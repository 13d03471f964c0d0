//! Signals, turned into what they ask for. A thread of its own waits for them, so that no shard ever runs in a handler.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::thread::JoinHandle;

/// What the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP: read the configuration and the files it names again.
    Reload,
    /// First SIGTERM or SIGINT: stop accepting, end sessions, exit 0.
    Drain,
    /// Any SIGTERM or SIGINT after that: exit now.
    Exit,
}

/// Which request a signal is, given whether the node is draining already.
const fn request(signal: i32, draining: bool) -> Option<Request> {
    match signal {
        SIGHUP => Some(Request::Reload),
        SIGTERM | SIGINT if draining => Some(Request::Exit),
        SIGTERM | SIGINT => Some(Request::Drain),
        _ => None,
    }
}

/// The waiting thread; ends when this is dropped.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Starts to call `act` for each request, one after the other, on a thread of its own. A reload is not followed by further ones that
/// arrived while it ran, except for one.
///
/// # Errors
/// The handlers cannot be installed or the thread cannot be started.
pub fn start(mut act: impl FnMut(Request) + Send + 'static) -> io::Result<SignalThread> {
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let run = move || {
        let mut draining = false;
        for signal in signals.forever() {
            let Some(request) = request(signal, draining) else { continue };
            draining |= request == Request::Drain;
            act(request);
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(run)?;
    Ok(SignalThread { handle, thread: Some(thread) })
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        // Dropped by the callback itself, the thread cannot wait for its own end.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// One test, since signals reach the whole process.
    #[test]
    fn hup_reloads_the_first_term_drains_and_the_second_exits() {
        let (told, requests) = channel();
        let thread = start(move |request| told.send(request).expect("the test listens")).expect("handlers");
        for (signal, expected) in
            [(SIGHUP, Request::Reload), (SIGTERM, Request::Drain), (SIGHUP, Request::Reload), (SIGINT, Request::Exit)]
        {
            signal_hook::low_level::raise(signal).expect("raise");
            assert_eq!(requests.recv_timeout(PATIENCE), Ok(expected));
        }
        drop(thread);
        assert!(requests.recv_timeout(PATIENCE).is_err(), "the thread has ended and dropped its callback");
    }
}
