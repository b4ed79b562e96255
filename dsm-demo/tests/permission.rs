//! What the demo says where the kernel does not permit userfaultfd: one line that names it and its fix, exit 2.

#[path = "../../dsm-node/tests/common/forbid.rs"]
mod forbid;

#[test]
fn the_list_ends_with_one_line() {
    for nodes in ["1", "4"] {
        let mut command = forbid::command(env!("CARGO_BIN_EXE_dsm-demo"));
        let output =
            command.args(["list", "--nodes", nodes, "--items", "100"]).output().expect("the demo starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains("userfaultfd") && message.contains("dsm doctor"), "{message}");
    }
}
