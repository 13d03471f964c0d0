//! The machine loses its power: whatever was not synced when the broker is killed is gone.
//!
//! The data directory is an ext4 file system on a loop device. At the kill the device's image is copied: what it holds is what
//! fdatasync has put there, while the page cache above it, with everything that was only written, is left behind. The next process gets the
//! copy, whose journal the kernel replays as after any power cut. Periodic write-back is kept out by `commit=600` and by runs shorter
//! than the kernel's expiry of dirty pages (30 s).

use crate::kill_loop::{WIDE, survive};
use bifro_tests::Broker;
use bifro_tests::process::fresh_dir;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROUNDS: u32 = 8;

/// A disk that can lose its power.
pub(crate) struct Disk {
    dir: PathBuf,
    image: PathBuf,
    generation: u32,
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn must(program: &str, arguments: &[&str]) {
    let output = run(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

impl Disk {
    /// None where this process may not mount: then there is nothing to be shown.
    pub(crate) fn sized(size: &str) -> Option<Self> {
        let dir = fresh_dir("power");
        let disk = Self { image: dir.join("disk-0"), dir, generation: 0 };
        std::fs::create_dir(disk.mount_point()).expect("a directory");
        must("truncate", &["-s", size, text(&disk.image)]);
        must("mkfs.ext4", &["-q", "-F", text(&disk.image)]);
        let mounted = disk.mount();
        if !mounted.status.success() {
            eprintln!("power loss not tested: cannot mount here: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        Some(disk)
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    fn mount(&self) -> Output {
        run("mount", &["-o", "loop,commit=600", text(&self.image), text(&self.mount_point())])
    }

    pub(crate) fn config(&self, durability: &str, reserve_mib: u32, settings: &str) -> String {
        let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n";
        let data = self.mount_point().join("data");
        let store = format!("[store]\ndurability = \"{durability}\"\ndisk_reserve_mib = {reserve_mib}\n");
        format!("{listener}{settings}{store}[node]\ndata_dir = \"{}\"\n", text(&data))
    }

    /// Everything that has not reached the device is gone.
    fn lose_power(&mut self) {
        self.generation += 1;
        let copy = self.dir.join(format!("disk-{}", self.generation));
        must("cp", &["--sparse=always", text(&self.image), text(&copy)]);
        must("umount", &[text(&self.mount_point())]);
        std::fs::remove_file(&self.image).expect("the old image");
        self.image = copy;
        let mounted = self.mount();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may not be mounted.
        let _ = run("umount", &["-l", text(&self.mount_point())]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn survive_on(disk: &mut Disk, durability: &str) {
    let broker = Broker::start_with(2, &disk.config(durability, 1, WIDE), &[]);
    survive(broker, ROUNDS, || disk.lose_power());
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let Some(mut disk) = Disk::sized("256M") else { return };
    survive_on(&mut disk, "fsync");
}

/// That the model bites: without syncing, acknowledged messages and whole sessions are lost.
#[test]
fn without_fsync_a_power_loss_does_lose_what_was_acknowledged() {
    let Some(mut disk) = Disk::sized("256M") else { return };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| survive_on(&mut disk, "os")));
    assert!(outcome.is_err(), "nothing was lost: the disk does not lose what it should");
}
