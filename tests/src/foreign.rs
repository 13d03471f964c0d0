//! Programs of others that tests need: whether they are here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether a test can run that needs something from outside. On a developer's machine a missing program skips it, saying
/// so; where `CI` is set it fails, unless `BIFRO_SKIP_FOREIGN=1` asks for less.
///
/// # Panics
/// If it is missing in CI.
pub fn is_here(what: &str, found: bool) -> bool {
    if found {
        return true;
    }
    let set = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    assert!(!set("CI", "true") || set("BIFRO_SKIP_FOREIGN", "1"), "{what} is not installed; scripts/ci.sh installs it");
    eprintln!("skipped: {what} is not installed; scripts/ci.sh installs it");
    false
}

/// Whether a program is on the path.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The top of the checkout.
///
/// # Panics
/// Never: this package lies in one.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the checkout")
}

/// An interpreter that can import paho: the checkout's own, or the system's. None if there is none, which is said, or fails where
/// [`is_here`] does.
pub fn python_with_paho() -> Option<PathBuf> {
    let candidates = [checkout().join(".venv/bin/python"), PathBuf::from("python3")];
    let python = candidates.into_iter().find(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import paho.mqtt.client as c; c.CallbackAPIVersion.VERSION2"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    is_here("paho-mqtt 2 for Python", python.is_some()).then_some(python).flatten()
}
