//! What the real Bicep compiler says. It is taken from `BICEP` or from the path; without one these tests are skipped,
//! save where `CI` is set.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::files::{json, path};
use super::snapshot::SETS;

/// A finding that depends on the calendar.
const BY_CALENDAR: &str = " Info use-recent-api-versions:";

/// The version of the compiler whose rules these are.
const RULES_OF: &str = "0.49.2.";

/// All core rules of the linter, from its source: `Azure/bicep src/Bicep.Core/Analyzers/Linter/Rules` (the compiler tells nobody
/// which rules it has).
const RULES: [&str; 53] = [
    "adminusername-should-not-be-literal",
    "artifacts-parameters",
    "decompiler-cleanup",
    "explicit-values-for-loc-params",
    "max-asserts",
    "max-outputs",
    "max-params",
    "max-resources",
    "max-variables",
    "nested-deployment-template-scoping",
    "no-conflicting-metadata",
    "no-deployments-resources",
    "no-explicit-any",
    "no-hardcoded-env-urls",
    "no-hardcoded-location",
    "no-hardcoded-outputs",
    "no-loc-expr-outside-params",
    "no-module-name",
    "no-unnecessary-dependson",
    "no-unused-existing-resources",
    "no-unused-imports",
    "no-unused-params",
    "no-unused-types",
    "no-unused-vars",
    "outputs-should-not-contain-secrets",
    "prefer-interpolation",
    "prefer-unquoted-property-names",
    "protect-commandtoexecute-secrets",
    "secure-parameter-default",
    "secure-params-in-nested-deploy",
    "secure-params-in-parameters-file",
    "secure-secrets-in-params",
    "simplify-interpolation",
    "simplify-json-null",
    "stacks-extensibility-compat",
    "use-description-outputs",
    "use-description-params",
    "use-description-type-properties",
    "use-description-types",
    "use-description-vars",
    "use-parent-property",
    "use-recent-api-versions",
    "use-recent-az-powershell-version",
    "use-recent-module-versions",
    "use-recognized-resource-type",
    "use-resource-id-functions",
    "use-resource-symbol-reference",
    "use-safe-access",
    "use-secure-value-for-secure-inputs",
    "use-stable-resource-identifiers",
    "use-stable-vm-image",
    "use-user-defined-types",
    "what-if-short-circuiting",
];

/// Runs the compiler; `None` where there is none.
fn bicep(arguments: &[&str]) -> Option<Output> {
    let program = std::env::var("BICEP").unwrap_or_else(|_| "bicep".to_owned());
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(path("infra"));
    let settings = [
        ("STACK_CLUSTER_ADDRESS", "https://stack.example"),
        ("STACK_APPLICATION_ID", "app"),
        ("STACK_API_KEY", "a.b.c"),
    ];
    match command.envs(settings).output() {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{program}: {error}; set BICEP"),
        Err(_) => {
            // Not by a macro: the test harness would keep it to itself.
            let _ = writeln!(std::io::stderr(), "skipped: no bicep (set BICEP or put it on the path)");
            None
        }
    }
}

/// The findings among what the compiler wrote.
fn findings(output: &Output) -> Vec<String> {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    let is_finding = |line: &&str| [" : Error ", " : Warning ", " : Info "].iter().any(|level| line.contains(level));
    text.lines().filter(is_finding).filter(|line| !line.contains(BY_CALENDAR)).map(str::to_owned).collect()
}

fn assert_clean(what: &str, output: &Output) {
    assert_eq!(findings(output), Vec::<String>::new(), "{what}");
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Without the version of the compiler and its hash.
fn without_generator(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            object.remove("_generator");
            object.values_mut().for_each(|member| *member = without_generator(member.take()));
        }
        Value::Array(array) => array.iter_mut().for_each(|item| *item = without_generator(item.take())),
        _ => {}
    }
    value
}

#[test]
fn the_template_compiles_without_a_finding_to_the_committed_main_json() {
    let Some(output) = bicep(&["build", "main.bicep", "--stdout"]) else { return };
    assert_clean("build", &output);
    let compiled = serde_json::from_slice(&output.stdout).expect("a template");
    let same = without_generator(compiled) == without_generator(json("infra/main.json"));
    assert!(same, "run `bicep build infra/main.bicep --outfile infra/main.json`");
}

#[test]
fn the_linter_finds_nothing_in_any_file() {
    let Some(output) = bicep(&["lint", "main.bicep"]) else { return };
    assert_clean("lint", &output);
    let output = bicep(&["build-params", "main.bicepparam", "--stdout"]).expect("it was there");
    assert_clean("main.bicepparam", &output);
}

#[test]
fn every_rule_of_the_linter_is_an_error_save_the_one_that_depends_on_the_calendar() {
    let config = json("infra/bicepconfig.json");
    let core = &config["analyzers"]["core"];
    assert_eq!(core["enabled"], true);
    let rules = core["rules"].as_object().expect("rules");
    assert!(rules.keys().map(String::as_str).eq(RULES), "{:?}", rules.keys());
    for (rule, setting) in rules {
        let level = if rule == "use-recent-api-versions" { "info" } else { "error" };
        assert_eq!(setting["level"], level, "{rule}");
    }
    // A newer compiler has more rules: whoever compiles with it looks for them.
    let compiler = json("infra/main.json")["metadata"]["_generator"]["version"].clone();
    let compiler = compiler.as_str().expect("a version");
    assert!(compiler.starts_with(RULES_OF), "main.json is of Bicep {compiler}: bring RULES up to date");
}

#[test]
fn the_files_are_formatted() {
    let copy = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("formatted");
    let _ = std::fs::remove_dir_all(&copy);
    std::fs::create_dir_all(&copy).expect("a folder");
    let files = ["main.bicep".into()].into_iter().chain(names("modules")).chain(names("monitoring"));
    let files: Vec<PathBuf> = files.filter(|name| name.extension().is_some_and(|kind| kind == "bicep")).collect();
    for name in &files {
        std::fs::copy(path("infra").join(name), copy.join(name.file_name().expect("a name"))).expect("copied");
    }
    let pattern = copy.join("*.bicep");
    let Some(output) = bicep(&["format", "--pattern", pattern.to_str().expect("UTF-8")]) else { return };
    assert_clean("format", &output);
    for name in &files {
        let formatted = std::fs::read(copy.join(name.file_name().expect("a name"))).expect("a file");
        let ours = std::fs::read(path("infra").join(name)).expect("a file");
        assert!(formatted == ours, "run `bicep format infra/{}`", name.display());
    }
}

/// The files of a folder of `infra/`, as seen from there.
fn names(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path("infra").join(folder)).expect("a folder");
    entries.map(|entry| Path::new(folder).join(entry.expect("an entry").file_name())).collect()
}

#[test]
fn every_committed_snapshot_is_what_the_template_evaluates_to() {
    for set in SETS {
        let file = format!("snapshots/{set}.bicepparam");
        let subscription = "00000000-0000-0000-0000-000000000000";
        let scope = ["--subscription-id", subscription, "--resource-group", "tts-iot-hub", "--location", "westeurope"];
        let arguments = [&["snapshot", &file, "--mode", "validate"][..], &scope].concat();
        let Some(output) = bicep(&arguments) else { return };
        assert_clean(&format!("{file}: run `bicep {}`", arguments.join(" ").replace("validate", "overwrite")), &output);
    }
}
