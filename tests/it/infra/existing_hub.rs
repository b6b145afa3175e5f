//! `infra/existing-hub.sh`, against an Azure CLI whose hub is a file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::files::path;

const API_KEY: &str = "NNSXS.S3CRET.S3CRET";

/// A hub of somebody else, and what was asked of it.
struct Azure {
    folder: PathBuf,
}

impl Azure {
    /// `None` where bash or Python is missing: then the test is skipped, save where `CI` is set.
    fn with(name: &str, change: impl FnOnce(&mut Value)) -> Option<Self> {
        for program in ["bash", "python3"] {
            if Command::new(program).arg("--version").output().is_err() {
                assert!(std::env::var_os("CI").is_none(), "{program} is needed");
                let _ = writeln!(std::io::stderr(), "skipped: no {program}");
                return None;
            }
        }
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("existing-hub-{name}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::copy(path("tests/it/infra/fake_az.py"), folder.join("az")).expect("a copy with its mode");
        let mut state = owners_hub();
        change(&mut state);
        let azure = Self { folder };
        azure.write(&state);
        Some(azure)
    }

    fn write(&self, state: &Value) {
        std::fs::write(self.folder.join("state.json"), state.to_string()).expect("written");
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder.join("state.json")).expect("the state")).expect("JSON")
    }

    /// The commands so far.
    fn commands(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("state.json.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn run(&self, options: &[&str]) -> Output {
        self.command(options).output().expect("it runs")
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new("bash");
        let own = std::env::var("PATH").expect("a path");
        command.arg(path("infra/existing-hub.sh")).args(options);
        command.args(["--hub", "acme", "--hub-resource-group", "iot", "--resource-group", "bridge"]);
        command.env("PATH", format!("{}:{own}", self.folder.display())).env("AZ_STATE", self.folder.join("state.json"));
        command.env("STACK_CLUSTER_ADDRESS", "https://stack.example").env("STACK_APPLICATION_ID", "app");
        command.env("STACK_API_KEY", API_KEY).env_remove("DEVICE_ID_PREFIX").env_remove("PACKAGE_URI");
        command.env_remove("WEBHOOK_SECRET");
        command
    }

    /// Runs it, and returns what it said.
    fn succeed(&self, options: &[&str]) -> String {
        let output = self.run(options);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs it, and returns what it complained of.
    fn refuse(&self, options: &[&str]) -> String {
        let output = self.run(options);
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).expect("UTF-8")
    }
}

fn owners_hub() -> Value {
    json!({
        "hub": {
            "name": "acme",
            "sku": {"name": "S2", "capacity": 3},
            "identity": null,
            "properties": {"routing": {
                "endpoints": {
                    "eventHubs": [{"name": "owners", "endpointUri": "sb://owner.servicebus.windows.net/", "entityPath": "all"}],
                    "storageContainers": [{"name": "archive"}],
                },
                "routes": [{
                    "name": "owners", "source": "DeviceMessages", "condition": "true",
                    "endpointNames": ["owners"], "isEnabled": true,
                }],
                "fallbackRoute": {"isEnabled": true},
            }},
        },
        "policies": [{"keyName": "iothubowner", "rights": "RegistryWrite, ServiceConnect, DeviceConnect", "primaryKey": "k"}],
        "deployments": [],
        "apps": {},
    })
}

#[test]
fn the_first_run_adds_a_policy_an_identity_an_endpoint_and_two_routes_and_touches_nothing_else() {
    let Some(azure) = Azure::with("first", |_| {}) else { return };
    let said = azure.succeed(&["--device-id-prefix", "lorawan-"]);
    assert_eq!(said.lines().filter(|line| line.starts_with("added:")).count(), 6, "{said}");
    assert!(!said.contains("there already"), "{said}");

    let (before, mut after) = (owners_hub(), azure.state());
    let policy = after["policies"].as_array_mut().expect("policies").pop().expect("ours");
    assert_eq!((&policy["keyName"], &policy["rights"]), (&"tts-iot-hub".into(), &"DeviceConnect".into()));
    let routing = &mut after["hub"]["properties"]["routing"];
    let routes = routing["routes"].as_array_mut().expect("routes").split_off(1);
    assert_eq!(routes[0]["source"], "DeviceLifecycleEvents");
    assert_eq!(routes[1]["source"], "TwinChangeEvents");
    assert_eq!(routes[1]["condition"], "IS_OBJECT($body.properties.desired) OR IS_OBJECT($body.tags)");
    let endpoint = routing["endpoints"]["eventHubs"].as_array_mut().expect("endpoints").pop().expect("ours");
    assert_eq!(endpoint["entityPath"], tts_iot_hub::event_hubs::STACK_EVENTS);
    assert_eq!(
        after["hub"]["identity"].take()["userAssignedIdentities"].as_object().map(serde_json::Map::len),
        Some(1)
    );

    let deployed = after["deployments"].take()[0]["environment"].clone();
    assert_eq!(deployed["STACK_API_KEY"], API_KEY);
    assert_eq!((&deployed["IOTHUB_SKU"], &deployed["IOTHUB_UNITS"]), (&"S2".into(), &"3".into()));
    assert_eq!(deployed["DEVICE_ID_PREFIX"], "lorawan-");
    let package = &super::files::json("infra/main.json")["parameters"]["packageUri"]["defaultValue"];
    assert_eq!(&deployed["PACKAGE_URI"], package, "no empty app is left");

    after["deployments"] = json!([]);
    after["apps"] = json!({});
    assert_eq!(after, before, "the rest is the owner's");
}

#[test]
fn the_second_run_changes_nothing_and_says_so() {
    let Some(azure) = Azure::with("second", |_| {}) else { return };
    azure.succeed(&[]);
    let (state, asked) = (azure.state(), azure.commands().len());
    let said = azure.succeed(&[]);
    assert_eq!(said.lines().filter(|line| line.starts_with("there already:")).count(), 6, "{said}");
    assert!(!said.contains("added:"), "{said}");
    assert_eq!(azure.state(), state);
    let commands = azure.commands().split_off(asked);
    assert!(commands.iter().all(|command| !command.contains("create") && !command.contains("assign")), "{commands:?}");
}

#[test]
fn a_run_that_broke_off_is_finished_by_the_next() {
    let Some(azure) = Azure::with("broken", |_| {}) else { return };
    azure.succeed(&[]);
    let mut state = azure.state();
    state["hub"]["properties"]["routing"]["routes"].as_array_mut().expect("routes").pop();
    azure.write(&state);
    let said = azure.succeed(&[]);
    let added: Vec<_> = said.lines().filter(|line| line.starts_with("added:")).collect();
    assert_eq!(added, ["added:         route tts-iot-hub-twin-changes"]);
}

#[test]
fn a_prefix_that_was_given_once_stays_until_it_is_changed_on_purpose() {
    let Some(azure) = Azure::with("prefix", |_| {}) else { return };
    let deployed = || azure.state()["deployments"][0]["environment"]["DEVICE_ID_PREFIX"].clone();
    azure.succeed(&["--device-id-prefix", "lorawan-"]);
    azure.succeed(&["--redeploy"]);
    assert_eq!(deployed(), "lorawan-", "kept without being given");
    azure.succeed(&["--redeploy", "--device-id-prefix", "lorawan-"]);
    assert_eq!(deployed(), "lorawan-");

    // What a deployment that broke off leaves: no outputs.
    let mut state = azure.state();
    state["deployments"][0]["properties"] = json!({"provisioningState": "Failed"});
    azure.write(&state);
    azure.succeed(&[]);
    assert_eq!(deployed(), "lorawan-", "kept by the next run, too");

    for options in [&["--device-id-prefix", "other-"][..], &["--redeploy", "--device-id-prefix", "other-"]] {
        let (state, said) = (azure.state(), azure.refuse(options));
        assert!(said.contains("the bridge has the device id prefix 'lorawan-', and 'other-' is given"), "{said}");
        assert!(
            said.contains("az functionapp config appsettings set --resource-group bridge --name tts-iot-hub-b "),
            "{said}"
        );
        assert_eq!(azure.state(), state);
    }
    let mut state = azure.state();
    state["apps"]["tts-iot-hub-b"]["DEVICE_ID_PREFIX"] = "other-".into();
    azure.write(&state);
    azure.succeed(&["--redeploy", "--device-id-prefix", "other-"]);
    assert_eq!(deployed(), "other-", "changed on purpose");
}

#[test]
fn a_bridge_without_a_prefix_does_not_get_one_by_the_way() {
    let Some(azure) = Azure::with("no-prefix", |_| {}) else { return };
    let said = azure.succeed(&[]);
    assert!(said.contains("note: without --device-id-prefix the bridge speaks as any device"), "{said}");
    let said = azure.refuse(&["--redeploy", "--device-id-prefix", "lorawan-"]);
    assert!(said.contains("the bridge has the device id prefix '', and 'lorawan-' is given"), "{said}");
}

#[test]
fn a_webhook_secret_is_not_taken_away_by_the_way() {
    let Some(azure) = Azure::with("webhook-secret", |_| {}) else { return };
    azure.succeed(&[]);
    let mut state = azure.state();
    state["apps"]["tts-iot-hub-b"]["WEBHOOK_SECRET"] =
        "@Microsoft.KeyVault(VaultName=v;SecretName=webhook-secret)".into();
    azure.write(&state);
    let said = azure.refuse(&["--redeploy"]);
    assert!(said.contains("WEBHOOK_SECRET is not set in the environment"), "{said}");
    assert_eq!(azure.state(), state);
    azure.succeed(&[]);
    let with_it = azure.command(&["--redeploy"]).env("WEBHOOK_SECRET", "wh-S3CRET").output().expect("it runs");
    assert!(with_it.status.success(), "{}", String::from_utf8_lossy(&with_it.stderr));
    assert!(!azure.commands().join("\n").contains("wh-S3CRET"));
}

#[test]
fn a_bridge_whose_app_is_gone_is_deployed_again_and_the_app_of_another_hub_is_not_asked() {
    let Some(azure) = Azure::with("gone", |_| {}) else { return };
    azure.succeed(&["--device-id-prefix", "lorawan-"]);
    let mut state = azure.state();
    state["apps"] = json!({"other": {"IOTHUB_HOSTNAME": "other.azure-devices.net", "DEVICE_ID_PREFIX": "x-"}});
    azure.write(&state);
    azure.succeed(&["--redeploy", "--device-id-prefix", "new-"]);
    assert_eq!(azure.state()["apps"]["tts-iot-hub-b"]["DEVICE_ID_PREFIX"], "new-");
    state["deployments"] = json!([]);
    azure.write(&state);
    azure.succeed(&[]);
    assert_eq!(azure.state()["apps"]["tts-iot-hub-b"]["DEVICE_ID_PREFIX"], Value::Null);
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let Some(azure) = Azure::with("dry", |_| {}) else { return };
    let said = azure.succeed(&["--dry-run"]);
    assert!(said.contains("would add:     shared access policy tts-iot-hub"), "{said}");
    assert!(!said.contains("added:"), "{said}");
    assert_eq!(azure.state(), owners_hub());
}

#[test]
fn no_secret_is_said_or_given_as_an_argument() {
    let Some(azure) = Azure::with("secrets", |_| {}) else { return };
    let said = azure.succeed(&[]);
    let all = azure.commands().join("\n") + &said;
    assert!(!all.contains("S3CRET") && !all.contains("c2VjcmV0"), "{all}");
}

#[test]
fn what_somebody_else_made_under_our_names_is_left_alone_and_named() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 4] = [
        (
            "policy",
            |state| {
                state["policies"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"keyName": "tts-iot-hub", "rights": "ServiceConnect"}))
            },
            "has a policy tts-iot-hub with the rights ServiceConnect",
        ),
        (
            "endpoint",
            |state| {
                let other = json!({"name": "tts-iot-hub", "endpointUri": "sb://other.servicebus.windows.net/", "entityPath": "x"});
                state["hub"]["properties"]["routing"]["endpoints"]["eventHubs"].as_array_mut().unwrap().push(other);
            },
            "has an endpoint tts-iot-hub to another place",
        ),
        (
            "route",
            |state| {
                let other = json!({
                    "name": "tts-iot-hub-twin-changes", "source": "TwinChangeEvents", "condition": "true",
                    "endpointNames": ["owners"], "isEnabled": true,
                });
                state["hub"]["properties"]["routing"]["routes"].as_array_mut().unwrap().push(other);
            },
            "has a route tts-iot-hub-twin-changes that differs",
        ),
        ("basic", |state| state["hub"]["sku"]["name"] = "B1".into(), "no device twins"),
    ];
    for (name, change, complaint) in cases {
        let Some(azure) = Azure::with(name, change) else { return };
        let said = azure.refuse(&[]);
        assert!(said.contains(complaint), "{name}: {said}");
    }
}

#[test]
fn a_hub_of_the_free_size_with_an_endpoint_is_refused_before_azure_does() {
    let Some(azure) = Azure::with("free", |state| state["hub"]["sku"]["name"] = "F1".into()) else { return };
    let said = azure.refuse(&[]);
    assert!(said.contains("allows one endpoint, and has owners, archive"), "{said}");
}
