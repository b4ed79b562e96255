//! Records the compiler's version: layouts of two binaries are only comparable when one compiler laid them out.

use std::env;
use std::process::Command;

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| String::from("rustc"));
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| String::from("unknown"), |text| text.trim().to_owned());
    println!("cargo::rustc-env=DSM_RUSTC_VERSION={version}");
    println!("cargo::rerun-if-changed=build.rs");
}
