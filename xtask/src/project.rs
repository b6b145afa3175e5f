//! Where the project is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cargo_metadata::MetadataCommand;

/// The folder of the Functions app, and where the package goes.
#[derive(Debug)]
pub(crate) struct Project {
    /// The folder with host.json.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// The version that the binary must say.
    pub(crate) version: String,
}

impl Project {
    /// Asks Cargo about the workspace of the current folder.
    ///
    /// # Errors
    /// If Cargo does not know it.
    pub(crate) fn find() -> Result<Self> {
        let metadata = MetadataCommand::new().no_deps().exec().context("ask cargo for the workspace")?;
        Ok(Self {
            root: metadata.workspace_root.into_std_path_buf(),
            target: metadata.target_directory.into_std_path_buf(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// The functions: the folders that hold a function.json, whatever `.funcignore` says of them.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn functions(&self) -> Result<BTreeSet<String>> {
        let entries = fs::read_dir(&self.root).with_context(|| format!("list {}", self.root.display()))?;
        let mut functions = BTreeSet::new();
        for entry in entries {
            let entry = entry?;
            if entry.path().join("function.json").is_file() {
                functions.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(functions)
    }

    /// Where the package, its SHA-256 and its SBOM are written.
    pub(crate) fn out(&self) -> PathBuf {
        self.target.join("package")
    }

    /// The path as shown to the user: relative to the project where it is in it.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
