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
    let rules = json("infra/bicepconfig.json")["analyzers"]["core"]["rules"].clone();
    for (rule, setting) in rules.as_object().expect("rules") {
        let level = if rule == "use-recent-api-versions" { "info" } else { "error" };
        assert_eq!(setting["level"], level, "{rule}");
    }
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
