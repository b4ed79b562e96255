//! Where a process hangs: each of its threads, as the kernel sees it.

use std::fs;
use std::path::Path;

/// One line per thread of `pid`: its name, its state, the kernel function that it waits in, and the system call.
pub(crate) fn threads_of(pid: u32) -> String {
    let folder = format!("/proc/{pid}/task");
    let Ok(tasks) = fs::read_dir(&folder) else { return format!("  {folder} cannot be read\n") };
    let mut text = String::new();
    for task in tasks.flatten() {
        let path = task.path();
        let state = read(&path, "status")
            .lines()
            .find_map(|line| line.strip_prefix("State:").map(|state| state.trim().to_owned()))
            .unwrap_or_default();
        text += &format!(
            "  thread {} ({}): {state}, in {}, system call {}\n",
            task.file_name().to_string_lossy(),
            read(&path, "comm"),
            read(&path, "wchan"),
            read(&path, "syscall"),
        );
    }
    text
}

/// Whether every thread of `pid` stands still.
pub(super) fn is_stopped(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let state = |status: &str| status.lines().any(|line| line.starts_with("State:\tT"));
    tasks.map(|task| read(&task.path(), "status")).all(|status| state(&status))
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}
