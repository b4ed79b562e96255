//! The commands that the README promises are the ones that `.ci/run` runs.

use std::path::Path;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// The commands in the shell blocks of the README's section `title`.
fn commands(readme: &str, title: &str) -> Vec<String> {
    let section = readme.split("\n## ").find(|section| section.starts_with(title)).expect(title);
    section
        .split("```sh\n")
        .skip(1)
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_the_readme_says_is_what_is_checked() {
    let commands = commands(&read("README.md"), "Try it");
    assert_eq!(commands.len(), 2, "one runs the list, one runs the tests: {commands:?}");
    let script = read(".ci/run");
    for command in commands {
        assert!(
            script.lines().any(|line| line.ends_with(&format!(" {command}"))),
            "{command} is not in .ci/run"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (folder, name) in [("", "README.md"), ("docs/", "docs/README.md")] {
        let text = read(name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join(link);
                assert!(path.exists(), "{name} links to {link}, which is not there");
            }
        }
    }
}
