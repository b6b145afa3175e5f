//! `cargo xtask package`: binary → bin/ → zip, verified before it gets its name, with its SHA-256 and SBOM.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

use crate::project::Project;
use crate::verify::{self, Verified};
use crate::{archive, compile, contents, funcignore, sbom};

const ZIP: &str = "tts-iot-hub-linux-x64.zip";
const SHA256: &str = "tts-iot-hub-linux-x64.zip.sha256";
const SBOM: &str = "tts-iot-hub.cdx.json";

/// Builds the binary and packs it, with an SBOM.
///
/// # Errors
/// If this machine cannot build it, or a step fails; then no new package is there.
pub(crate) fn build_and_pack(project: &Project) -> Result<()> {
    compile::can_build_here()?;
    let binary = compile::release_binary(project)?;
    // Made first, so that no package is without it.
    let sbom = sbom::of_binary(project).context("make the SBOM")?;
    let verified = pack(project, &binary)?;
    let path = project.out().join(SBOM);
    fs::write(&path, sbom).with_context(|| format!("write {}", path.display()))?;
    report(project, &verified);
    println!("{}", project.shown(&path));
    Ok(())
}

/// Packs a binary that someone else built.
///
/// # Errors
/// If a step fails, or the binary is not what a package needs; then no new package is there.
pub(crate) fn pack_given(project: &Project, binary: &Path) -> Result<()> {
    let verified = pack(project, binary)?;
    report(project, &verified);
    println!("no SBOM: what is in a given binary is not known");
    Ok(())
}

fn report(project: &Project, verified: &Verified) {
    println!("{}\n{verified}", project.shown(&project.out().join(ZIP)));
}

/// Stages the binary, writes the package beside its name, verifies it, and only then gives it the name.
fn pack(project: &Project, binary: &Path) -> Result<Verified> {
    let host_json = fs::read(project.root.join(contents::HOST_JSON)).context("read host.json")?;
    let staged = project.root.join(contents::executable_path(&host_json)?);
    compile::stage(binary, &staged, &project.version)?;

    let names = funcignore::let_through(&project.root)?;
    let executable = contents::executable(&names, &host_json)?;
    let out = project.out();
    fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let mut zip = NamedTempFile::new_in(&out)?;
    archive::write(zip.as_file_mut(), &project.root, &names, &executable)?;
    let written = fs::read(zip.path()).context("read the package just written")?;
    let verified =
        verify::verify(&written, &project.version, &project.functions()?).context("verify the package just written")?;

    // A checksum of another zip, or an SBOM of another binary, must at no time lie beside this one.
    remove(&out.join(SHA256))?;
    remove(&out.join(SBOM))?;
    let named = zip.persist(out.join(ZIP)).with_context(|| format!("write {ZIP}"))?;
    // Temporary files are their owner's alone; a package is for whoever deploys it.
    compile::make_readable(&named)?;
    fs::write(out.join(SHA256), format!("{}  {ZIP}\n", verified.sha256)).with_context(|| format!("write {SHA256}"))?;
    Ok(verified)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::testing::{Linkage, elf, folder, program, write};

    const HOST: &str = r#"{"customHandler": {"description": {"defaultExecutablePath": "bin/app"}}}"#;

    /// A tiny project, and a binary beside it.
    fn project() -> (TempDir, TempDir, Project) {
        let root = folder(&[
            ("host.json", HOST),
            (".funcignore", "/.funcignore\n/src\n/target\n"),
            ("B/function.json", "{}"),
            ("A/function.json", "{}"),
            ("LICENSE", "free"),
            ("src/main.rs", "fn main() {}"),
        ]);
        let elsewhere = folder(&[]);
        write(&elsewhere, "built", &program("tts-iot-hub 1.2.3\n"));
        let project =
            Project { root: root.path().into(), target: root.path().join("target"), version: "1.2.3".to_owned() };
        (root, elsewhere, project)
    }

    fn read(project: &Project, name: &str) -> Vec<u8> {
        fs::read(project.out().join(name)).expect(name)
    }

    #[test]
    fn a_given_binary_is_staged_packed_and_verified() {
        let (root, elsewhere, project) = project();
        write(&root, "target/package/tts-iot-hub.cdx.json", b"of another binary");
        pack_given(&project, &elsewhere.path().join("built")).expect("a package");

        assert_eq!(fs::read(root.path().join("bin/app")).expect("staged"), program("tts-iot-hub 1.2.3\n"));
        let verified = verify::file(&project.out().join(ZIP), "1.2.3", &project.functions().expect("a folder"))
            .expect("a good package");
        assert_eq!(verified.files, 5);
        let line = String::from_utf8(read(&project, SHA256)).expect("text");
        assert_eq!(line, format!("{}  {ZIP}\n", verified.sha256), "as `sha256sum --check` reads it");
        assert!(!project.out().join(SBOM).exists(), "an SBOM of another binary is left beside the package");
        assert_eq!(fs::read_dir(project.out()).expect("a folder").count(), 2, "a temporary file is left");
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let (root, elsewhere, project) = project();
        let binary = elsewhere.path().join("built");
        pack(&project, &binary).expect("a package");
        let first = read(&project, ZIP);
        // Other times on the files, another order in the folder.
        for name in ["A/function.json", "host.json", "LICENSE"] {
            let path = root.path().join(name);
            let bytes = fs::read(&path).expect("bytes");
            fs::remove_file(&path).expect("removed");
            write(&root, name, &bytes);
        }
        pack(&project, &binary).expect("a package");
        assert!(first == read(&project, ZIP));
    }

    #[test]
    fn what_is_refused_leaves_the_package_that_is_there() {
        let (root, elsewhere, project) = project();
        let binary = elsewhere.path().join("built");
        pack(&project, &binary).expect("a package");
        let (zip, sum) = (read(&project, ZIP), read(&project, SHA256));

        write(&root, "notes.txt", b"");
        let error = pack(&project, &binary).expect_err("an unknown file");
        assert!(error.to_string().contains("no part of a package: notes.txt"), "{error:#}");
        fs::remove_file(root.path().join("notes.txt")).expect("removed");

        write(&root, ".funcignore", b"/.funcignore\n/src\n/target\n/A\n");
        let error = format!("{:#}", pack(&project, &binary).expect_err("a function is left out"));
        assert!(error.contains("its functions are B, not A, B"), "{error}");
        write(&root, ".funcignore", b"/.funcignore\n/src\n/target\n");

        for (bytes, complaint) in [
            (elf("tts-iot-hub 1.2.3\n", 62, Linkage::Needed), "asks for shared libraries"),
            (program("tts-iot-hub 9.9.9\n"), "says `tts-iot-hub 9.9.9`"),
        ] {
            write(&elsewhere, "built", &bytes);
            let error = format!("{:#}", pack(&project, &binary).expect_err(complaint));
            assert!(error.contains(complaint), "{error}");
        }
        let staged = fs::read(root.path().join("bin/app")).expect("staged");
        assert_eq!(
            staged,
            program("tts-iot-hub 1.2.3\n"),
            "what is refused must not be published from the folder either"
        );
        assert!(zip == read(&project, ZIP) && sum == read(&project, SHA256));
        assert_eq!(fs::read_dir(project.out()).expect("a folder").count(), 2, "a temporary file is left");
    }

    #[test]
    fn the_project_s_own_files_make_a_package() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let names = funcignore::let_through(root).expect("both readings of .funcignore agree");
        let host_json = fs::read(root.join(contents::HOST_JSON)).expect("host.json");
        let executable = contents::executable_path(&host_json).expect("an executable");
        // The binary is there only once it is built.
        let with_binary = names.iter().cloned().chain([executable.clone()]).collect::<Vec<_>>();
        assert_eq!(contents::executable(&with_binary, &host_json).expect("a package"), executable);
    }

    #[test]
    fn the_container_is_built_by_this_compiler_from_all_that_the_package_needs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let dockerfile = fs::read_to_string(root.join("infra/container/Dockerfile")).expect("a Dockerfile");
        assert!(dockerfile.contains(&format!("FROM rust:{}-slim AS build\n", env!("CARGO_PKG_RUST_VERSION"))));
        assert!(dockerfile.contains(&format!("unzip target/package/{ZIP} ")));

        // Root-level names mean the same there as in .gitignore.
        let (ignored, error) = ignore::gitignore::Gitignore::new(root.join(".dockerignore"));
        assert!(error.is_none(), "{error:?}");
        let package = funcignore::let_through(root).expect("files");
        let sources = [".cargo/config.toml", ".funcignore", "Cargo.lock", "Cargo.toml", "src/main.rs"];
        let members =
            ["simulator/src/main.rs", "xtask/src/main.rs", "tests/fixtures/webhooks/uplink_message/full.json"];
        for name in sources.into_iter().chain(members).chain(package.iter().map(String::as_str)) {
            let left_out = ignored.matched_path_or_any_parents(name, false).is_ignore();
            assert_eq!(left_out, name.starts_with("bin/"), "{name}");
        }
    }
}
