//! The resources against what the code and the Functions host expect of them.

use std::collections::{BTreeMap, BTreeSet};

use tts_iot_hub::event_hubs::{DEAD_LETTERS, PARKED_UPLINKS, STACK_EVENTS};

use super::files::{json, read};
use super::snapshot::{all, text};

const EVENT_HUBS: &str = "Microsoft.EventHub/namespaces/eventhubs";

#[test]
fn the_event_hubs_are_those_of_the_code_and_keep_events_for_a_week() {
    for snapshot in all() {
        let hubs = snapshot.resources(EVENT_HUBS);
        let hubs: BTreeMap<_, _> = hubs
            .iter()
            .map(|hub| (text(&hub["name"]).rsplit('/').next().expect("a name"), &hub["properties"]))
            .collect();
        let partitions: BTreeMap<_, _> =
            hubs.iter().map(|(name, hub)| (*name, hub["partitionCount"].as_u64())).collect();
        let wanted = [(STACK_EVENTS, Some(4)), (PARKED_UPLINKS, Some(4)), (DEAD_LETTERS, Some(1))];
        assert_eq!(partitions, wanted.into(), "{}", snapshot.name);
        for (name, hub) in hubs {
            assert_eq!(hub["retentionDescription"]["retentionTimeInHours"], 7 * 24, "{name}");
            assert_eq!(hub["retentionDescription"]["cleanupPolicy"], "Delete", "{name}");
        }
        assert_eq!(snapshot.resources("Microsoft.EventHub/namespaces")[0]["sku"]["name"], "Standard");
    }
}

#[test]
fn each_trigger_finds_its_event_hub_its_consumer_group_and_its_connection() {
    let mut wanted = BTreeSet::new();
    for function in ["EventHubForwarder", "ParkedUplinks"] {
        let trigger = &json(&format!("{function}/function.json"))["bindings"][0];
        wanted.insert(format!("/{}/{}", text(&trigger["eventHubName"]), text(&trigger["consumerGroup"])));
        for snapshot in all() {
            let connection = format!("{}__fullyQualifiedNamespace", text(&trigger["connection"]));
            let (_, namespace) = snapshot.settings().find(|(name, _)| *name == connection).expect("the connection");
            let name = text(&snapshot.resources("Microsoft.EventHub/namespaces")[0]["name"]);
            assert_eq!(namespace, format!("{name}.servicebus.windows.net"), "{}", snapshot.name);
        }
    }
    for snapshot in all() {
        let groups = snapshot.resources("Microsoft.EventHub/namespaces/eventhubs/consumergroups");
        let namespace = text(&snapshot.resources("Microsoft.EventHub/namespaces")[0]["name"]);
        let groups: BTreeSet<_> = groups.iter().map(|group| text(&group["name"]).replacen(namespace, "", 1)).collect();
        assert_eq!(groups, wanted, "{}", snapshot.name);
    }
}

#[test]
fn the_hub_routes_lifecycle_events_and_twin_changes_to_the_bridge_and_says_what_becomes_of_the_rest() {
    for snapshot in all() {
        for hub in snapshot.resources("Microsoft.Devices/IotHubs") {
            let routing = &hub["properties"]["routing"];
            let endpoints = routing["endpoints"]["eventHubs"].as_array().expect("endpoints");
            assert_eq!(endpoints.len(), 1, "the free size has no more");
            assert_eq!(endpoints[0]["entityPath"], STACK_EVENTS);
            assert_eq!(endpoints[0]["authenticationType"], "identityBased");
            let identity = text(&endpoints[0]["identity"]["userAssignedIdentity"]);
            assert!(hub["identity"]["userAssignedIdentities"].get(identity).is_some(), "{identity}");
            let namespace = text(&snapshot.resources("Microsoft.EventHub/namespaces")[0]["name"]);
            assert_eq!(endpoints[0]["endpointUri"], format!("sb://{namespace}.servicebus.windows.net"));

            let routes = routing["routes"].as_array().expect("routes");
            let routes: Vec<_> =
                routes.iter().map(|route| (text(&route["source"]), text(&route["condition"]))).collect();
            let twins = "IS_OBJECT($body.properties.desired) OR IS_OBJECT($body.tags)";
            assert_eq!(routes, [("DeviceLifecycleEvents", "true"), ("TwinChangeEvents", twins)]);
            let fallback = &routing["fallbackRoute"];
            assert_eq!(fallback["isEnabled"], snapshot.name != "f1", "{}", snapshot.name);
            assert_eq!(fallback["endpointNames"], serde_json::json!(["events"]));
        }
    }
}

#[test]
fn roles_are_assigned_before_the_hub_is_made_and_the_app_has_all_it_needs_before_its_settings() {
    let template = json("infra/main.json");
    let waits_for = |resource: &str| -> BTreeSet<String> {
        let all = template["resources"][resource]["dependsOn"].as_array().expect("dependencies");
        all.iter().map(|name| text(name).to_owned()).collect()
    };
    // A role takes minutes until it is in force, and the hub takes minutes to be made.
    for early in ["eventHubs", "monitoring", "secrets", "storage"] {
        assert!(waits_for("hub").contains(early), "{early} assigns a role");
        assert!(!waits_for(early).contains("hub"), "{early}");
    }
    for needed in ["eventHubs", "hubRoles", "monitoring", "policyKey", "secrets", "storage"] {
        assert!(waits_for("app").contains(needed), "{needed}");
    }
    let modules = template["resources"].as_object().expect("resources");
    let assigning = modules.iter().filter(|(_, module)| module.to_string().contains("/roleAssignments\""));
    let late: Vec<_> = assigning.filter(|(name, _)| waits_for(name).contains("hub")).map(|(name, _)| name).collect();
    assert_eq!(late, ["hubRoles"], "a role on the hub itself can't be earlier");
    assert_eq!(waits_for("policyKey"), ["hub", "secrets"].map(str::to_owned).into());
    let package = &template["resources"]["app"]["properties"]["template"]["resources"]["package"];
    assert!(package["dependsOn"].to_string().contains("app::settings"), "{package}");
}

#[test]
fn the_app_has_the_shape_that_the_design_asks_for() {
    let host = json("host.json");
    for snapshot in all() {
        let site = &snapshot.resources("Microsoft.Web/sites")[0]["properties"];
        let site_config: BTreeSet<_> =
            site["siteConfig"].as_object().expect("settings of the site").keys().map(String::as_str).collect();
        // Flex Consumption refuses many others; a new one is looked up first.
        assert_eq!(site_config, BTreeSet::from(["http20Enabled", "minTlsVersion", "scmMinTlsVersion"]));
        let app = &site["functionAppConfig"];
        assert_eq!(app["runtime"], serde_json::json!({"name": "custom", "version": "1.0"}));
        let scale = &app["scaleAndConcurrency"];
        assert_eq!(scale["instanceMemoryMB"], 512);
        // The host must not hold back what the platform lets in.
        let http = &host["extensions"]["http"];
        assert_eq!(scale["triggers"]["http"]["perInstanceConcurrency"], http["maxConcurrentRequests"]);
        assert!(http["maxOutstandingRequests"].as_u64() >= http["maxConcurrentRequests"].as_u64());
        let (instances, ready) = match snapshot.name {
            "always-ready" => (2, serde_json::json!([{"name": "http", "instanceCount": 1}])),
            _ => (1, serde_json::json!([])),
        };
        assert_eq!((&scale["maximumInstanceCount"], &scale["alwaysReady"]), (&instances.into(), &ready));
    }
}

#[test]
fn the_hub_of_the_free_size_has_one_unit_whatever_is_asked_for() {
    for snapshot in all() {
        let (_, sku) = snapshot.settings().find(|(name, _)| *name == "IOTHUB_SKU").expect("it is set");
        let (_, units) = snapshot.settings().find(|(name, _)| *name == "IOTHUB_UNITS").expect("it is set");
        for hub in snapshot.resources("Microsoft.Devices/IotHubs") {
            assert_eq!(
                hub["sku"],
                serde_json::json!({"name": sku, "capacity": units.parse::<u32>().expect("a number")})
            );
        }
        if snapshot.name == "f1" {
            assert!(read("infra/snapshots/f1.bicepparam").contains("param iotHubUnits = 3"), "more is asked for");
            assert_eq!((sku, units), ("F1", "1"));
            let quota = snapshot.resource("Microsoft.Insights/metricAlerts", "-hub-quota");
            assert_eq!(quota["properties"]["criteria"]["allOf"][0]["threshold"], 6400, "80 % of 8000");
        }
    }
}

#[test]
fn no_record_of_the_bridge_is_sampled_away() {
    let sampling = &json("host.json")["logging"]["applicationInsights"]["samplingSettings"];
    let excluded: BTreeSet<_> = text(&sampling["excludedTypes"]).split(';').collect();
    assert_eq!(excluded, BTreeSet::from(["Exception", "Request", "Trace"]), "alerts count them");
}

#[test]
fn the_package_that_is_installed_is_the_release_of_this_version() {
    let package = &json("infra/main.json")["parameters"]["packageUri"]["defaultValue"];
    let version = env!("CARGO_PKG_VERSION");
    let release = "https://github.com/tts-iot-hub/tts-iot-hub/releases/download";
    assert_eq!(text(package), format!("{release}/v{version}/tts-iot-hub-linux-x64.zip"));
    for snapshot in all() {
        let installed = snapshot.resources("Microsoft.Web/sites/extensions");
        match installed[..] {
            [] => assert_eq!(snapshot.name, "f1", "an empty app is left"),
            [one] => assert_eq!(&one["properties"]["packageUri"], package),
            _ => panic!("several packages"),
        }
    }
}

#[test]
fn the_documents_deploy_this_version_too() {
    let version = env!("CARGO_PKG_VERSION");
    let raw = format!("https%3A%2F%2Fraw.githubusercontent.com%2Ftts-iot-hub%2Ftts-iot-hub%2Fv{version}%2Finfra%2F");
    let button = format!(
        "(https://portal.azure.com/#create/Microsoft.Template/uri/{raw}main.json/createUIDefinitionUri/{raw}createUiDefinition.json)"
    );
    let package = &json("infra/main.json")["parameters"]["packageUri"]["defaultValue"];
    for document in ["README.md", "docs/deploy.md"] {
        let text_of = read(document);
        let buttons: Vec<_> =
            text_of.lines().filter(|line| line.contains("https://portal.azure.com/#create")).collect();
        assert!(!buttons.is_empty(), "{document} has no button");
        assert!(buttons.iter().all(|line| line.contains(&button)), "{document}: {buttons:?}");
        let packages: Vec<_> = text_of.lines().filter_map(|line| line.strip_prefix("export PACKAGE_URI=")).collect();
        assert!(!packages.is_empty(), "{document} has no PACKAGE_URI");
        assert!(packages.iter().all(|given| given == package), "{document}: {packages:?}");
    }
}

#[test]
fn nothing_is_logged_for_each_session_of_a_device() {
    for snapshot in all() {
        for setting in snapshot.resources("Microsoft.Insights/diagnosticSettings") {
            let logs = setting["properties"]["logs"].as_array().map(Vec::as_slice).unwrap_or_default();
            for category in logs.iter().map(|log| text(&log["category"])) {
                let few = ["AuditEvent", "DeviceIdentityOperations", "OperationalLogs", "Routes"];
                assert!(few.contains(&category), "{category}");
            }
        }
    }
}
