//! What a package may hold: host.json, one folder with function.json per function, the executable, LICENSE.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The file that makes a folder a Functions app.
pub(crate) const HOST_JSON: &str = "host.json";

/// Checks the names of a package's files and finds the executable among them.
///
/// # Errors
/// If something is missing, or a file is there that has no business in a package.
pub(crate) fn executable(names: &[String], host_json: &[u8]) -> Result<String> {
    let executable = executable_path(host_json)?;
    ensure!(
        names.contains(&executable),
        "{executable}: host.json starts it, but it is not among the files; the name must be the same to the letter"
    );
    ensure!(
        names.iter().any(|name| function(name).is_some()),
        "no function: a folder with function.json is needed for each"
    );
    let unknown: Vec<&str> = names
        .iter()
        .filter(|name| function(name).is_none() && ![HOST_JSON, "LICENSE", &executable].contains(&name.as_str()))
        .map(String::as_str)
        .collect();
    ensure!(
        unknown.is_empty(),
        "no part of a package: {}; remove it or name it in .funcignore, as `/name`",
        unknown.join(", ")
    );
    Ok(executable)
}

/// The function whose `function.json` this is: the name of its folder.
pub(crate) fn function(name: &str) -> Option<&str> {
    name.strip_suffix("/function.json").filter(|folder| is_plain(folder))
}

/// Whether this names one file or folder, on every system.
fn is_plain(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && !part.contains(['/', '\\', ':', '%'])
}

/// `customHandler.description.defaultExecutablePath`.
///
/// Core Tools give the executable bit to the entry with exactly this name (`Azure/azure-functions-core-tools
/// src/Cli/func/Helpers/ZipHelper.cs`), so it must be written as a zip writes it.
///
/// # Errors
/// If host.json has none, or it is written otherwise.
pub(crate) fn executable_path(host_json: &[u8]) -> Result<String> {
    const MEMBER: &str = "customHandler.description.defaultExecutablePath";
    let host: Value = serde_json::from_slice(host_json).context("read host.json as JSON")?;
    let Some(path) = host["customHandler"]["description"]["defaultExecutablePath"].as_str() else {
        bail!("host.json has no {MEMBER}");
    };
    ensure!(
        path.split('/').all(is_plain),
        "{MEMBER} in host.json is `{path}`; write it as the zip's entry is named, such as `bin/app`"
    );
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = br#"{"customHandler": {"description": {"defaultExecutablePath": "bin/app"}}}"#;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_package_holds_the_host_file_the_functions_and_the_executable() {
        for files in [
            names(&["F/function.json", "G/function.json", "bin/app", "host.json"]),
            names(&["F/function.json", "LICENSE", "bin/app", "host.json"]),
        ] {
            assert_eq!(executable(&files, HOST).expect("a package"), "bin/app");
        }
    }

    #[test]
    fn an_unknown_or_a_missing_file_is_an_error_that_names_it() {
        for (files, complaint) in [
            (names(&["F/function.json", "bin/app", "host.json", "src/lib.rs", "a.env"]), "src/lib.rs, a.env"),
            (names(&["F/function.json", "F/notes", "bin/app", "host.json"]), "F/notes"),
            (names(&["F/G/function.json", "F/function.json", "bin/app", "host.json"]), "F/G/function.json"),
            (names(&["F/function.json", "bin/app", "bin/other", "host.json"]), "bin/other"),
            (names(&["F/function.json", "./bin/app", "host.json"]), "bin/app: host.json starts it"),
            (names(&["bin/app", "host.json"]), "no function"),
            (names(&["F/function.json", "/function.json", "bin/app", "host.json"]), "/function.json"),
            (names(&["F/function.json", "./function.json", "bin/app", "host.json"]), "./function.json"),
            (names(&["../function.json", "bin/app", "host.json"]), "no function"),
            (names(&["F/function.json", "F\\G/function.json", "bin/app", "host.json"]), "F\\G/function.json"),
        ] {
            let error = executable(&files, HOST).expect_err("not a package").to_string();
            assert!(error.contains(complaint), "{files:?}: {error}");
        }
    }

    #[test]
    fn the_executable_is_named_as_a_zip_names_it() {
        for path in ["./bin/app", "/bin/app", "bin\\app", "%HOME%/app", "bin/../app", "bin//app", ""] {
            let host = serde_json::json!({"customHandler": {"description": {"defaultExecutablePath": path}}});
            let error = executable_path(host.to_string().as_bytes()).expect_err(path).to_string();
            assert!(error.contains("as the zip's entry is named"), "{path}: {error}");
        }
        assert!(executable_path(b"{}").expect_err("none").to_string().contains("has no customHandler"));
        assert!(executable_path(b"{").is_err());
    }
}
