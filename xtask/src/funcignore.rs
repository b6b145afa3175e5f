//! Which files `.funcignore` lets into the package.
//!
//! The file is meant in the syntax of `.gitignore`, but Core Tools read it with a matcher of their own: each line becomes a
//! regular expression that must match from the start of the path and end at a word boundary
//! (`Azure/azure-functions-core-tools src/Cli/func/Common/GitIgnoreParser.cs`). `target/` does not cover
//! `target/.rustc_info.json` there, and `/host` covers `host.json`. So both readings are evaluated, and a file on which
//! they differ is an error: what `func azure functionapp publish` uploads is what is in the zip.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use regex::Regex;

/// The file's name, in the project's root.
pub(crate) const FUNCIGNORE: &str = ".funcignore";

/// What Core Tools never upload, whatever `.funcignore` says (`src/Cli/func/Common/FileSystemHelpers.cs`).
const NEVER_UPLOADED: [&str; 4] = [FUNCIGNORE, ".gitignore", "local.settings.json", "project.lock.json"];
const NEVER_ENTERED: [&str; 2] = [".git", ".vscode"];

/// The files of the package, with `/` between folders, sorted by their bytes.
///
/// # Errors
/// If `.funcignore` cannot be read, if its two readings differ, or if something in the package is no plain file.
pub(crate) fn let_through(root: &Path) -> Result<Vec<String>> {
    let rules = Rules::read(root)?;
    let mut files = vec![];
    rules.walk(root, "", &mut files)?;
    files.sort_unstable();
    Ok(files)
}

struct Rules {
    as_git: Gitignore,
    as_core_tools: CoreTools,
}

impl Rules {
    fn read(root: &Path) -> Result<Self> {
        let path = root.join(FUNCIGNORE);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut builder = GitignoreBuilder::new(root);
        for line in text.lines() {
            builder.add_line(None, line).with_context(|| format!("read `{line}` in {FUNCIGNORE}"))?;
        }
        Ok(Self { as_git: builder.build()?, as_core_tools: CoreTools::parse(&text)? })
    }

    fn walk(&self, folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                bail!("{}: its name is not UTF-8; rename it", entry.path().display());
            };
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            let denied = self.as_git.matched(&path, kind.is_dir()).is_ignore();
            if kind.is_dir() {
                match denied {
                    true => self.must_be_denied_whole(&name, &path)?,
                    false => self.walk(&entry.path(), &format!("{path}/"), files)?,
                }
                continue;
            }
            let uploaded = !NEVER_UPLOADED.contains(&name.as_str()) && self.as_core_tools.accepts(&path);
            let (ours, theirs) =
                if denied { ("leaves it out", "upload it") } else { ("lets it through", "leave it out") };
            ensure!(
                uploaded != denied,
                "{path}: {FUNCIGNORE} {ours}, but Core Tools, which match lines in their own way, would {theirs}; \
                 name files and folders of the root as `/name`, without a `/` at the end"
            );
            if !denied {
                ensure!(kind.is_file(), "{path}: a package holds plain files only, no links");
                files.push(path);
            }
        }
        Ok(())
    }

    /// Core Tools look at each file, so a folder is left out only if any name in it is.
    fn must_be_denied_whole(&self, name: &str, path: &str) -> Result<()> {
        let partly = [".a", "a"].iter().find(|file| self.as_core_tools.accepts(&format!("{path}/{file}")));
        ensure!(
            NEVER_ENTERED.contains(&name) || partly.is_none(),
            "{path}: {FUNCIGNORE} leaves this folder out, but Core Tools, which match lines in their own way, would upload \
             files of it; write it as `/name`, without a `/` at the end"
        );
        Ok(())
    }
}

/// `.funcignore` as Core Tools read it: whatever one of these matches is not uploaded.
struct CoreTools(Vec<Regex>);

impl CoreTools {
    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(pattern).collect::<Result<_>>().map(Self)
    }

    fn accepts(&self, path: &str) -> bool {
        !self.0.iter().any(|line| line.is_match(path))
    }
}

fn pattern(line: &str) -> Result<Regex> {
    ensure!(
        !line.starts_with('!'),
        "`{line}` in {FUNCIGNORE}: with such lines Core Tools were seen to upload nothing \
         (Azure/azure-functions-core-tools issue 4240); name what is left out"
    );
    let within = |part: &str| part.split('*').map(regex::escape).collect::<Vec<_>>().join("[^/]+");
    let line = line.strip_prefix('/').unwrap_or(line);
    let across = line.split("**").map(within).collect::<Vec<_>>().join(".+");
    // Their word boundary knows ASCII only.
    Ok(Regex::new(&format!(r"^(?:{across})(?-u:\b)"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::folder;

    #[test]
    fn what_funcignore_does_not_name_is_let_through_sorted() {
        let root = folder(&[
            (".funcignore", "# comment\n\n/src\n/*.md\n/.ci\n/.funcignore\n"),
            ("host.json", "{}"),
            ("B/function.json", "{}"),
            ("bin/app", ""),
            ("README.md", ""),
            ("src/main.rs", ""),
            ("src/.hidden", ""),
            (".ci/run", ""),
        ]);
        assert_eq!(let_through(root.path()).expect("files"), ["B/function.json", "bin/app", "host.json"]);
    }

    #[test]
    fn a_line_that_core_tools_read_otherwise_is_refused() {
        for (line, complaint) in [
            ("target/", "target: .funcignore leaves this folder out, but Core Tools"),
            ("/host", "host.json: .funcignore lets it through, but Core Tools"),
            ("deep", "x/deep: .funcignore leaves it out, but Core Tools"),
            ("!host.json", "seen to upload nothing"),
            // Core Tools never upload this one; others do, so it must be named.
            ("/none", "local.settings.json: .funcignore lets it through, but Core Tools"),
        ] {
            let text = format!("{line}\n/.funcignore\n");
            let settings = if line == "/none" { "local.settings.json" } else { "other.json" };
            let root = folder(&[
                (FUNCIGNORE, text.as_str()),
                ("target/.info", ""),
                ("host.json", "{}"),
                ("x/deep", ""),
                (settings, "{}"),
            ]);
            let error = format!("{:#}", let_through(root.path()).expect_err(line));
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_no_part_of_a_package() {
        let root = folder(&[(FUNCIGNORE, "/.funcignore\n"), ("host.json", "{}")]);
        std::os::unix::fs::symlink("host.json", root.path().join("link")).expect("a link");
        assert!(let_through(root.path()).expect_err("a link").to_string().contains("no links"));
    }
}
