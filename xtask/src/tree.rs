//! Which packages Cargo builds for the binary, by `cargo tree`: the features that the build resolves, for its target, without
//! what only tests or other members need. (`cargo metadata` knows the union of all members' features only.)

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::compile::{NAME, TARGET};
use crate::project::Project;

/// Name and version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Packages and what each asks for.
pub(crate) type Graph = BTreeMap<Id, BTreeSet<Id>>;

/// What is linked into the binary.
pub(crate) const LINKED: &str = "normal,no-proc-macro";
/// The same with macros, build scripts and what these ask for.
pub(crate) const BUILT: &str = "normal,build";

/// Asks Cargo for the graph along these edges.
///
/// # Errors
/// If Cargo fails, or says something that we do not understand.
pub(crate) fn of_binary(project: &Project, edges: &str) -> Result<Graph> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&project.root)
        .args(["tree", "--locked", "--package", NAME, "--target", TARGET, "--edges", edges])
        .args(["--prefix", "depth", "--format", "|{p}|"])
        .output()
        .context("run cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse(std::str::from_utf8(&output.stdout)?)
}

/// Lines such as `3|http v1.5.0| (*)`: depth, package, and whether its dependencies were told before.
fn parse(text: &str) -> Result<Graph> {
    let mut graph = Graph::new();
    let mut path: Vec<Id> = vec![];
    for line in text.lines() {
        let parsed = line.split_once('|').and_then(|(depth, rest)| {
            let (name, rest) = rest.split('|').next()?.split_once(" v")?;
            let version = rest.split(' ').next()?;
            Some((depth.parse::<usize>().ok()?, Id { name: name.to_owned(), version: version.to_owned() }))
        });
        let Some((depth, id)) = parsed else { bail!("cargo tree said `{line}`, which is not understood") };
        ensure!(depth <= path.len(), "cargo tree skipped a level before `{line}`");
        path.truncate(depth);
        if let Some(parent) = path.last() {
            graph.entry(parent.clone()).or_default().insert(id.clone());
        }
        graph.entry(id.clone()).or_default();
        path.push(id);
    }
    ensure!(!graph.is_empty(), "cargo tree said nothing");
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        Id { name: name.to_owned(), version: "1.0.0".to_owned() }
    }

    #[test]
    fn the_depths_of_the_lines_tell_who_asks_for_whom() {
        let graph = parse(
            "0|top v1.0.0 (/some/folder)|\n1|a v1.0.0|\n2|c v1.0.0|\n1|b v1.0.0 (proc-macro)|\n2|a v1.0.0| (*)\n1|c v1.0.0|\n",
        );
        let expected: Graph = [("top", vec!["a", "b", "c"]), ("a", vec!["c"]), ("b", vec!["a"]), ("c", vec![])]
            .map(|(name, asks)| (id(name), asks.into_iter().map(id).collect()))
            .into();
        assert_eq!(graph.expect("a graph"), expected);
    }

    #[test]
    fn lines_that_are_not_understood_are_an_error() {
        for text in ["", "nonsense\n", "0|top|\n", "x|top v1.0.0|\n", "1|top v1.0.0|\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
