//! What the command line checks and prints, without a node.

use bifro_tests::process;
use std::path::PathBuf;
use std::process::{Command, Output};

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        // It is only left behind if the system does not let go of it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Dir {
    fn new() -> Self {
        Self(process::fresh_dir("command-line"))
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.join(name), content).expect("a file");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(process::binaries().join("bifro-uring"));
        command.args(arguments).current_dir(&self.0).output().expect("it runs")
    }

    /// Standard output of a run that succeeds.
    fn output(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Standard error of a run that fails.
    fn failure(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}

const CHECK: [&str; 3] = ["--check-config", "--config", "node.toml"];

#[test]
fn what_print_config_prints_is_a_configuration_that_prints_the_same() {
    let dir = Dir::new();
    let defaults = dir.output(&["--print-config"]);
    assert!(defaults.contains("[[listener]]") && defaults.contains("shutdown_deadline_s"), "{defaults}");
    dir.write("node.toml", &defaults);
    dir.output(&CHECK);
    assert_eq!(dir.output(&["--print-config", "--config", "node.toml"]), defaults);
    let with_cores = dir.output(&["--print-config", "--cores", "3"]);
    assert!(with_cores.lines().any(|line| line.trim() == "cores = 3"), "{with_cores}");
}

#[test]
fn check_config_reads_everything_the_configuration_names() {
    let dir = Dir::new();
    let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
    let with_acl = format!("{listener}[acl]\nfile = \"acl\"\n");
    dir.write("node.toml", &with_acl);
    let missing = dir.failure(&CHECK);
    assert!(missing.contains("acl") && missing.contains("cannot be read"), "{missing}");
    dir.write("acl", "allow all #\nallow publish\n");
    let wrong = dir.failure(&CHECK);
    assert!(wrong.contains("acl:2"), "{wrong}");
    dir.write("acl", "allow all #\n");
    let good = dir.output(&CHECK);
    assert!(good.contains("node.toml"), "{good}");
}

/// HOSTILE 26.
#[test]
fn every_mistake_is_named_by_file_line_and_key() {
    let dir = Dir::new();
    dir.write(
        "node.toml",
        "[node]\nshutdown_deadline_s = 3601\n[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n",
    );
    let range = dir.failure(&CHECK);
    assert!(
        range.contains("node.toml:2") && range.contains("shutdown_deadline_s") && range.contains("3600"),
        "{range}"
    );
    dir.write("node.toml", "[node]\nnonsense = 1\n");
    let unknown = dir.failure(&CHECK);
    assert!(unknown.contains("node.toml:2") && unknown.contains("nonsense"), "{unknown}");
    dir.write("node.toml", "[node]\ncores = \"many\"\n");
    let mistyped = dir.failure(&CHECK);
    assert!(mistyped.contains("node.toml:2") && mistyped.contains("cores"), "{mistyped}");
    dir.write("node.toml", "[node\n");
    assert!(dir.failure(&CHECK).contains("node.toml:1"));
    let absent = dir.failure(&["--config", "nowhere.toml"]);
    assert!(absent.contains("nowhere.toml") && absent.contains("cannot be read"), "{absent}");
    // A start fails in the same words.
    assert!(dir.failure(&["--config", "node.toml"]).contains("node.toml:1"));
}
