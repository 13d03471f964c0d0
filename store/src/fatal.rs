//! What the storage layers are given by their surroundings: how to end the process, and how to wake a shard.

use std::any::Any;
use std::sync::Arc;

/// Called with a named reason when going on would risk acknowledged data (a failed fsync, a broken base). The process is expected
/// to end; a hook that returns (in tests) finds the layer refusing all further work.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Wakes a shard that may sleep. Called from storage threads after something was put where the shard looks.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Exit code of a process that could not trust its storage (`EX_IOERR` of sysexits.h).
pub const EXIT_CODE: i32 = 74;

/// Says the reason on standard error and ends the process at once, without destructors: nothing more may be written.
pub fn exit_process() -> Fatal {
    Arc::new(|reason| {
        eprintln!("fatal: {reason}");
        std::process::exit(EXIT_CODE)
    })
}

/// The words of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic without a message")
}
