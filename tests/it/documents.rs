//! What the documents name is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use tts_iot_hub::cli::Cli;

use crate::support::root;

/// The documents for users and maintainers, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = ["", "docs", "infra/monitoring", "infra/container", "simulator"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root().join(folder)).expect("a folder"));
    let documents: Vec<_> = files
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("UTF-8")))
        .collect();
    assert!(documents.len() > 10, "{}", documents.len());
    documents
}

/// The text without its code blocks, which hold no links or headings.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    prose(&text).lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// The words that follow a text, each up to the next character that is no part of a word.
fn words_after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let after = text.split(before).skip(1);
    after.map(|rest| rest.split(|c| !is_part(c)).next().unwrap_or_default()).filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut links = 0;
    for (document, text) in documents() {
        let text = prose(&text);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { document.clone() } else { document.with_file_name("").join(file) };
            assert!(path.exists(), "{}: {target}", document.display());
            if !place.is_empty() {
                assert!(anchors(&path).contains(place), "{}: {target}", document.display());
            }
            links += 1;
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn every_command_and_option_of_ours_that_a_document_names_is_there() {
    let cli = Cli::command();
    let commands: BTreeSet<&str> = cli.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
    let script = std::fs::read_to_string(root().join("infra/existing-hub.sh")).expect("the script");
    let mut named = 0;
    for (document, text) in documents() {
        // In code only: `tts-iot-hub` is also the name of resources.
        let code = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("tts-iot-hub "));
        let lines = text.lines().filter(|line| line.starts_with("tts-iot-hub "));
        for command in code.chain(lines).flat_map(|code| words_after(code, "tts-iot-hub ").into_iter().take(1)) {
            assert!(commands.contains(command), "{}: tts-iot-hub {command}", document.display());
            named += 1;
        }
        for line in text.lines().filter(|line| line.contains("existing-hub.sh")) {
            let (_, arguments) = line.split_once("existing-hub.sh").expect("it is in the line");
            for option in words_after(arguments.split('`').next().unwrap_or_default(), " --") {
                assert!(script.contains(&format!("--{option}")), "{}: existing-hub.sh --{option}", document.display());
                named += 1;
            }
        }
    }
    assert!(named > 10, "{named}");
}

/// All sources of the bridge in one text, with texts that go on in the next line joined.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.push_str(&sources(&path));
        } else {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            all.extend(text.split("\\\n").map(str::trim_start));
        }
    }
    all
}

#[test]
fn every_message_of_ours_to_look_up_in_troubleshoot_is_one_that_the_bridge_says() {
    let sources = sources(&root().join("src")).to_lowercase();
    let page = std::fs::read_to_string(root().join("docs/troubleshoot.md")).expect("the page");
    let (_, ours) = page.split_once("\n## The app does not start").expect("what is Azure's stands before it");
    let mut looked_up = 0;
    for cell in ours.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next()) {
        if cell.contains("the host's:") {
            continue;
        }
        let quoted = cell.split('`').skip(1).step_by(2);
        // What differs from case to case is left out of a quotation.
        for part in quoted.flat_map(|text| text.split('…')).map(str::trim).filter(|part| part.len() > 3) {
            assert!(sources.contains(&part.to_lowercase()), "nobody says `{part}`");
            looked_up += 1;
        }
    }
    assert!(looked_up > 20, "{looked_up}");
}
