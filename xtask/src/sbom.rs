//! The SBOM (CycloneDX 1.5): what is linked into the binary has the scope `required`, what only its build ran has `excluded`.
//!
//! It holds no time and no serial number: the same sources make the same SBOM.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cargo_lock::Lockfile;
use cargo_metadata::{MetadataCommand, Package};
use cyclonedx_bom::models::component::{Classification, Scope};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::prelude::{
    Bom, Component, Components, Metadata, NormalizedString, Purl, SpecVersion, Validate as _,
};

use crate::compile::{NAME, TARGET};
use crate::project::Project;
use crate::tree::{self, Graph, Id};

const SPEC: SpecVersion = SpecVersion::V1_5;

/// The SBOM of the binary that `cargo xtask package` builds, as JSON.
///
/// # Errors
/// If Cargo or the compiler does not tell what is needed.
pub(crate) fn of_binary(project: &Project) -> Result<Vec<u8>> {
    let linked = tree::of_binary(project, tree::LINKED)?;
    let mut built = tree::of_binary(project, tree::BUILT)?;
    // The second holds the first, unless the two were asked of different lock files.
    ensure!(linked.keys().all(|id| built.contains_key(id)), "Cargo.lock changed meanwhile; try again");
    let about = Packages::read(project)?;

    let (mut main, mut components) = (None, vec![]);
    for id in built.keys() {
        let component = about.component(id, linked.contains_key(id))?;
        match id.name == NAME {
            true => main = Some(component),
            false => components.push(component),
        }
    }
    let main = main.with_context(|| format!("cargo tree does not name {NAME}"))?;
    let runtime = runtime(project)?;
    let top = Id { name: NAME.to_owned(), version: project.version.clone() };
    built.entry(top).or_default().extend(runtime.iter().map(|(id, _)| id.clone()));
    components.extend(runtime.into_iter().map(|(_, component)| component));
    json(main, components, &built)
}

/// What is linked in though no package asks for it.
fn runtime(project: &Project) -> Result<Vec<(Id, Component)>> {
    let rustc = said(project, "rustc", &["--version"])?;
    let rustc = rustc.split(' ').nth(1).context("read the version of rustc")?.to_owned();
    let glibc = said(project, "getconf", &["GNU_LIBC_VERSION"])?;
    let glibc = glibc.split(' ').nth(1).context("read the version of glibc")?.to_owned();
    // The unwinder of static programs is GCC's libgcc_eh.a. Clang links the same file, but tells a version of its own.
    let gcc = said(project, "cc", &["-dumpfullversion"]).context("read the version of GCC: cc must be GCC")?;
    ensure!(
        !gcc.is_empty() && gcc.split('.').all(|part| part.parse::<u32>().is_ok()),
        "cc says its version is `{gcc}`"
    );
    let parts = [
        ("rust-std", rustc, "MIT OR Apache-2.0", "the standard library of Rust"),
        ("glibc", glibc, "LGPL-2.1-or-later", "the C library of the machine that built the binary, linked statically"),
        (
            "libgcc",
            gcc,
            "GPL-3.0-or-later WITH GCC-exception-3.1",
            "the unwinder of GCC on the machine that built the binary, linked statically",
        ),
    ];
    Ok(parts
        .into_iter()
        .map(|(name, version, licence, description)| {
            let id = Id { name: name.to_owned(), version };
            let mut component = Component::new(Classification::Library, &id.name, &id.version, Some(reference(&id)));
            component.scope = Some(Scope::Required);
            component.description = Some(NormalizedString::new(description));
            component.licenses = Some(Licenses(vec![LicenseChoice::expression(licence)]));
            (id, component)
        })
        .collect())
}

fn said(project: &Project, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(&project.root)
        .output()
        .with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn json(main: Component, components: Vec<Component>, graph: &Graph) -> Result<Vec<u8>> {
    let dependency = |(id, asks): (&Id, &BTreeSet<Id>)| Dependency {
        dependency_ref: reference(id),
        dependencies: asks.iter().map(reference).collect(),
    };
    let bom = Bom {
        serial_number: None,
        metadata: Some(Metadata { component: Some(main), ..Metadata::default() }),
        components: Some(Components(components)),
        dependencies: Some(Dependencies(graph.iter().map(dependency).collect())),
        spec_version: SPEC,
        ..Bom::default()
    };
    let checked = bom.validate_version(SPEC);
    ensure!(checked.passed(), "it is not valid: {checked:?}");
    let mut json = vec![];
    bom.output_as_json(&mut json, SPEC)?;
    json.push(b'\n');
    Ok(json)
}

fn reference(id: &Id) -> String {
    format!("{}@{}", id.name, id.version)
}

/// What Cargo knows of each package.
struct Packages {
    by_id: BTreeMap<Id, Package>,
    checksums: BTreeMap<Id, String>,
}

impl Packages {
    fn read(project: &Project) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .current_dir(&project.root)
            .other_options(["--locked", "--filter-platform", TARGET].map(str::to_owned))
            .exec()
            .context("ask cargo for the packages")?;
        let id = |package: &Package| Id { name: package.name.to_string(), version: package.version.to_string() };
        let by_id = metadata.packages.into_iter().map(|package| (id(&package), package)).collect();
        let lock = Lockfile::load(project.root.join("Cargo.lock"))?;
        let checksums = lock.packages.into_iter().filter_map(|package| {
            let id = Id { name: package.name.to_string(), version: package.version.to_string() };
            Some((id, package.checksum?.to_string()))
        });
        Ok(Self { by_id, checksums: checksums.collect() })
    }

    fn component(&self, id: &Id, is_linked: bool) -> Result<Component> {
        let package = self.by_id.get(id).with_context(|| format!("cargo metadata does not know {}", reference(id)))?;
        let kind = if id.name == NAME { Classification::Application } else { Classification::Library };
        let mut component = Component::new(kind, &id.name, &id.version, Some(reference(id)));
        component.scope = Some(if is_linked { Scope::Required } else { Scope::Excluded });
        component.description = package.description.as_deref().map(NormalizedString::new);
        component.licenses = package.license.as_deref().map(|licence| {
            // Old packages write `MIT/Apache-2.0`.
            Licenses(vec![LicenseChoice::expression(&licence.replace('/', " OR "))])
        });
        component.hashes = self
            .checksums
            .get(id)
            .map(|checksum| Hashes(vec![Hash { alg: HashAlgorithm::SHA_256, content: HashValue(checksum.clone()) }]));
        if package.source.is_some() {
            component.purl = Some(Purl::new("cargo", &id.name, &id.version)?);
        }
        Ok(component)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_sbom_tells_what_is_linked_from_what_only_the_build_ran() {
        let project = Project::find().expect("this project");
        let json = of_binary(&project).expect("an SBOM");
        assert_eq!(json, of_binary(&project).expect("an SBOM"), "it differs from run to run");
        assert!(Bom::parse_from_json_v1_5(json.as_slice()).expect("CycloneDX").validate_version(SPEC).passed());

        let bom: Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(bom["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
        let components = bom["components"].as_array().expect("components");
        let scope = |name: &str| {
            let found = components.iter().find(|component| component["name"] == name)?;
            found["scope"].as_str()
        };
        for (name, expected) in [
            ("rustls", Some("required")),
            ("aws-lc-sys", Some("required")),
            ("glibc", Some("required")),
            ("libgcc", Some("required")),
            ("rust-std", Some("required")),
            // A macro, a build script's helper, what only tests, the simulator or this program need, another system's.
            ("serde_derive", Some("excluded")),
            ("cc", Some("excluded")),
            ("proptest", None),
            ("rcgen", None),
            ("zip", None),
            ("windows-sys", None),
        ] {
            assert_eq!(scope(name), expected, "{name}");
        }
        for component in components {
            let name = &component["name"];
            assert!(component["licenses"].is_array(), "{name} has no licence");
            let is_package = !["glibc", "libgcc", "rust-std"].iter().any(|runtime| name == runtime);
            assert_eq!(component["purl"].is_string(), is_package, "{name}");
            assert_eq!(component["hashes"][0]["content"].as_str().map(str::len), is_package.then_some(64), "{name}");
        }
        let top = format!("tts-iot-hub@{}", env!("CARGO_PKG_VERSION"));
        let dependencies = bom["dependencies"].as_array().expect("dependencies");
        let of_top = dependencies.iter().find(|entry| entry["ref"] == top.as_str()).expect("the binary's");
        let asked: Vec<_> = of_top["dependsOn"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        for part in ["glibc@", "libgcc@", "rust-std@"] {
            assert!(asked.iter().any(|asked| asked.starts_with(part)), "{part}");
        }
        assert!(
            !String::from_utf8_lossy(&json).contains(&project.root.display().to_string()),
            "a path of this machine"
        );
    }
}
