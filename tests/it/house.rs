//! The project's own files agree with each other.

use serde_json::Value;

use crate::support::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_settings_table_of_the_readme_is_the_one_of_the_code() {
    let output = std::process::Command::new(crate::support::handler()).arg("settings").output().expect("it runs");
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    let readme = read("README.md");
    let (_, rest) = readme.split_once("<!-- settings -->\n").expect("the table's beginning");
    let (shown, _) = rest.split_once("<!-- /settings -->").expect("the table's end");
    assert_eq!(shown.trim(), table.trim(), "put the output of `tts-iot-hub settings` into README.md");
}

#[test]
fn the_functions_are_bound_to_what_the_code_serves() {
    let host = json("host.json");
    assert_eq!(host["customHandler"]["description"]["arguments"], serde_json::json!(["serve"]));
    assert_eq!(host["customHandler"]["enableProxyingHttpRequest"], true);
    let batch = host["extensions"]["eventHubs"]["maxEventBatchSize"].as_u64().expect("a number");
    assert!(batch <= 64, "the handler takes envelopes of 64 events of 1 MiB");

    let ingress = json("UplinkIngress/function.json");
    assert_eq!(ingress["bindings"].as_array().map(Vec::len), Some(2), "one output more and the host stops proxying");
    assert_eq!(ingress["bindings"][0]["authLevel"], "function");

    let hubs = [
        ("EventHubForwarder", tts_iot_hub::event_hubs::STACK_EVENTS),
        ("ParkedUplinks", tts_iot_hub::event_hubs::PARKED_UPLINKS),
    ];
    for (function, event_hub) in hubs {
        let function = json(&format!("{function}/function.json"));
        let trigger = &function["bindings"][0];
        assert_eq!(trigger["eventHubName"], event_hub);
        assert_eq!((&trigger["cardinality"], &trigger["dataType"]), (&"many".into(), &"binary".into()));
        assert_eq!(function["retry"]["maxRetryCount"], -1, "a batch that fails must come again without end");
    }
}

#[test]
fn the_local_settings_start_the_handler_and_name_nothing_that_nobody_reads() {
    /// Read by the Functions host and Core Tools
    /// (<https://learn.microsoft.com/azure/azure-functions/functions-app-settings>).
    const OF_THE_PLATFORM: [&str; 3] = [
        "FUNCTIONS_WORKER_RUNTIME",
        "AzureWebJobsStorage",
        "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath",
    ];
    let sample = json("local.settings.sample.json");
    let values = sample["Values"].as_object().expect("an object");
    let of_the_code = |name: &str| tts_iot_hub::config::SETTINGS.iter().any(|(known, ..)| *known == name);
    for (name, value) in values {
        assert!(value.is_string(), "Core Tools take texts only: {name}");
        assert!(OF_THE_PLATFORM.contains(&name.as_str()) != of_the_code(name), "{name}");
    }
    assert!(OF_THE_PLATFORM.iter().all(|name| values.contains_key(*name)));
    let built = values[OF_THE_PLATFORM[2]].as_str().expect("a text");
    let packaged = json("host.json")["customHandler"]["description"]["defaultExecutablePath"].clone();
    assert_eq!(built.rsplit('/').next(), packaged.as_str().and_then(|path| path.rsplit('/').next()));

    // Every setting that must be given is given, in its form.
    let host = [("FUNCTIONS_CUSTOMHANDLER_PORT".to_owned(), "7075".to_owned())];
    let given = values.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    tts_iot_hub::config::Config::from_vars(given.chain(host)).expect("a configuration");
}

#[test]
fn nothing_in_the_bridge_knows_the_simulator() {
    fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = vec![];
    sources(&root().join("src"), &mut found);
    for path in found {
        let text = std::fs::read_to_string(&path).expect("a source file");
        // Tests stand below the code, or in files of their own.
        let is_test_file = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(is_test_file || !code.to_lowercase().contains("simulator"), "{}", path.display());
    }
}
