//! The forms that people fill in: the portal's, and the webhook template of The Things Stack.

use std::collections::BTreeSet;

use serde_json::Value;
use tts_iot_hub::message_type::MessageType;

use super::files::{json, read};
use super::snapshot::text;

/// The elements of the form, as its expressions name them, each with its type.
fn elements(form: &Value) -> Vec<(String, String)> {
    let named = |elements: &Value, how: &dyn Fn(&str) -> String| -> Vec<(String, String)> {
        let elements = elements.as_array().expect("elements").iter();
        elements.map(|element| (how(text(&element["name"])), text(&element["type"]).to_owned())).collect()
    };
    let mut all = named(&form["parameters"]["basics"], &|name| format!("basics('{name}')"));
    for step in form["parameters"]["steps"].as_array().expect("steps") {
        let place = text(&step["name"]);
        all.extend(named(&step["elements"], &|name| format!("steps('{place}').{name}")));
    }
    all
}

/// Whether an expression uses this element, and not only one whose name begins so.
fn uses(expression: &str, element: &str) -> bool {
    expression.split(element).skip(1).any(|after| !after.starts_with(|next: char| next.is_alphanumeric()))
}

#[test]
fn the_portals_form_gives_every_parameter_that_must_be_given_and_no_unknown_one() {
    let form = json("infra/createUiDefinition.json");
    let template = json("infra/main.json");
    let outputs = form["parameters"]["outputs"].as_object().expect("outputs");
    for name in outputs.keys() {
        assert!(template["parameters"].get(name).is_some(), "the template has no parameter {name}");
    }
    for (name, about) in template["parameters"].as_object().expect("parameters") {
        assert!(about.get("defaultValue").is_some() || outputs.contains_key(name), "{name} is not asked for");
    }
}

#[test]
fn the_portals_form_uses_every_element_that_it_shows_and_shows_every_one_that_it_uses() {
    let form = json("infra/createUiDefinition.json");
    let shown: Vec<_> = elements(&form).into_iter().map(|(element, _)| element).collect();
    let outputs = form["parameters"]["outputs"].as_object().expect("outputs").values();
    let outputs: Vec<_> = outputs.map(text).filter(|output| *output != "[location()]").collect();
    for element in &shown {
        assert!(outputs.iter().any(|output| uses(output, element)), "{element} is shown for nothing");
    }
    for output in outputs {
        assert!(shown.iter().any(|element| uses(output, element)), "{output} is nowhere asked for");
    }
}

#[test]
fn the_portals_form_hides_what_is_secret() {
    let form = json("infra/createUiDefinition.json");
    let template = json("infra/main.json");
    let is_secret = |name: &str| template["parameters"][name]["type"] == "securestring";
    let outputs = form["parameters"]["outputs"].as_object().expect("outputs");
    let secret: Vec<_> = outputs.keys().filter(|name| is_secret(name)).collect();
    assert_eq!(secret, ["stackApiKey", "webhookSecret"]);
    for (element, kind) in elements(&form) {
        for (parameter, output) in outputs.iter().filter(|(_, output)| uses(text(output), &element)) {
            let hidden = kind == "Microsoft.Common.PasswordBox";
            assert_eq!(hidden, is_secret(parameter), "{parameter} is {output}, which is a {kind}");
        }
    }
}

#[test]
fn the_portals_form_offers_what_the_template_allows() {
    let form = json("infra/createUiDefinition.json");
    let template = json("infra/main.json");
    for (step, element, parameter) in
        [("hub", "sku", "iotHubSku"), ("alerts", "nothingFlowsWindow", "nothingFlowsWindow")]
    {
        let named = |all: &Value, name: &str| -> Value {
            let mut all = all.as_array().expect("a list").iter();
            all.find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
        };
        let element = named(&named(&form["parameters"]["steps"], step)["elements"], element);
        let offered = element["constraints"]["allowedValues"].as_array().expect("values");
        let about = &template["parameters"][parameter];
        let values: Vec<_> = offered.iter().map(|one| one["value"].clone()).collect();
        assert_eq!(Value::from(values), about["allowedValues"], "{parameter}");
        let chosen =
            offered.iter().find(|one| one["label"] == element["defaultValue"]).expect("the default is offered");
        assert_eq!(chosen["value"], about["defaultValue"], "{parameter}");
    }
}

/// The lines of a block of the YAML file, without its indentation.
fn block<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| *line != format!("{key}:")).skip(1);
    let lines = lines.take_while(|line| line.starts_with(' ')).map(str::trim);
    lines.filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn the_webhook_template_has_a_path_for_each_of_the_eleven_message_types() {
    let template = read("infra/tts-webhook-template.yml");
    let paths = block(&template, "paths");
    let paths: BTreeSet<_> = paths.iter().map(|line| line.split_once(": ''").expect("an empty path").0).collect();
    let types: Vec<_> = MessageType::ALL.iter().map(|kind| kind.key().replace('_', "-")).collect();
    assert_eq!(paths, types.iter().map(String::as_str).collect());
}

#[test]
fn the_webhook_template_asks_for_each_field_that_it_uses_within_the_bounds_of_the_format() {
    let template = read("infra/tts-webhook-template.yml");
    assert!(template.contains("base-url: https://{host}/api/uplink{/devID}\n"), "{template}");
    assert_eq!(
        block(&template, "headers"),
        ["x-functions-key: '{function-key}'", "X-Webhook-Secret: '{webhook-secret}'"]
    );
    assert!(template.contains("\nformat: json\n"), "the bridge takes no other");
    let fields = block(&template, "fields");
    let ids: Vec<_> = fields.iter().filter_map(|line| line.strip_prefix("- id: ")).collect();
    assert_eq!(ids, ["host", "function-key", "webhook-secret"]);
    // TheThingsNetwork/lorawan-webhook-templates schema/validate.go
    for line in template.lines().map(|line| line.trim_start_matches(['-', ' '])) {
        let limit = [("name: ", 20), ("description: ", 100), ("template-id: ", 32), ("id: ", 32)];
        for (value, limit) in limit.iter().filter_map(|(key, limit)| Some((line.strip_prefix(key)?, limit))) {
            assert!(value.len() <= *limit, "{value} is longer than {limit}");
        }
    }
    let webhook_secret = template.split("- id: webhook-secret").nth(1).expect("the field");
    assert!(webhook_secret.contains("optional: true"), "a bridge may have none");
}
