//! Any payload fits, and one that fits already stays as it is.

use std::io::BufRead as _;

use proptest::prelude::*;
use serde_json::{Map, Number, Value, json};

use super::*;

/// Keys as codecs make them, and such that try the escape.
pub(super) fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-z]{1,3}[._ ]?[0-9]{0,2}",
        4 => "(_|_x|_X|x|00|2E|e9|[.$#]|\u{0}|\u{85}|\u{3000}|é|_x002E_|_xFFFF_){0,8}",
        2 => any::<String>(),
        1 => ("[._]{0,3}", 100usize..1100, "[a-c.]{0,2}").prop_map(|(a, n, z)| format!("{a}{}{z}", "k".repeat(n))),
        1 => ("(_x005F_|\\.|_x00){1,40}", 900usize..1030).prop_map(|(a, n)| format!("{}{a}", "k".repeat(n))),
    ]
}

fn any_number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::from),
        any::<u64>().prop_map(Number::from),
        any::<f64>().prop_filter_map("JSON has no infinity", Number::from_f64),
        (-2i64..=2).prop_map(|i| Number::from((1i64 << 52) + i)),
        (-2i64..=2).prop_map(|i| Number::from(-(1i64 << 52) + i)),
    ]
}

fn any_value(key: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any_number().prop_map(Value::Number),
        any::<String>().prop_map(Value::String),
        (".", 4000usize..4200).prop_map(|(c, n)| Value::String(c.repeat(n))),
        (0usize..14).prop_map(|levels| nested(levels, json!([null]))),
    ];
    leaf.prop_recursive(12, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object_with(key: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = Map<String, Value>> {
    let top = prop_oneof![Just("decodedPayload".to_owned()), Just("serviceData".to_owned()), key.clone()];
    prop::collection::btree_map(top, any_value(key), 0..6).prop_map(|members| members.into_iter().collect())
}

/// Any JSON object.
pub(super) fn any_object() -> impl Strategy<Value = Map<String, Value>> {
    object_with(any_key().boxed())
}

/// A value with so many objects around it.
pub(super) fn nested(levels: usize, value: Value) -> Value {
    (0..levels).fold(value, |inner, _| json!({"n": inner}))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    }
}

/// What a decoded payload becomes.
fn payload(decoded: Value) -> Value {
    let fitted = fit_reported(object(json!({"decodedPayload": decoded})));
    assert_eq!(check(&fitted.patch), Ok(()), "{:?}", fitted.patch);
    fitted.patch.get("decodedPayload").cloned().expect("the payload is never left out")
}

#[test]
fn every_awkward_payload_has_its_form() {
    let high = (1i64 << 52) - 1;
    for (decoded, expected) in [
        (json!({"pm2.5": 7, "pm10": 9}), json!({"pm2_x002E_5": 7, "pm10": 9})),
        (
            json!({"[01] Temperature [°C]": 21.3, "CO₂": 640}),
            json!({"[01]_x0020_Temperature_x0020_[°C]": 21.3, "CO₂": 640}),
        ),
        (json!({"$type": 1, "a$b": "$"}), json!({"_x0024_type": 1, "a_x0024_b": "$"})),
        (
            json!({"pm2.5": 1, "pm2_5": 2, "pm2_x002E_5": 3}),
            json!({"pm2_x002E_5": 1, "pm2_5": 2, "pm2_x005F_x002E_5": 3}),
        ),
        (json!({"Temp": 1, "temp": 2}), json!({"Temp": 1, "temp": 2})),
        (json!({"m": [[{"a.b": 1}], [2, "x"]]}), json!({"m": [[{"a_x002E_b": 1}], [2, "x"]]})),
        (json!({"door": null, "t": {"u": null}}), json!({"door": null, "t": {"u": null}})),
        (json!({"data": null}), json!({"data": null})),
        (json!({"a": [1, null, {"b": null, "c": 2}]}), json!({"a": [1, "null", {"c": 2}]})),
        (json!({"n": high}), json!({"n": high})),
        (json!({"n": high + 1}), json!({"n": 4_503_599_627_370_496.0})),
        (json!({"n": (1i64 << 53) + 1}), json!({"n": 9_007_199_254_740_992.0})),
        (json!({"n": -high - 1}), json!({"n": -high - 1})),
        (json!({"n": -high - 2}), json!({"n": -4_503_599_627_370_497.0})),
        (json!({"n": u64::MAX}), json!({"n": 18_446_744_073_709_551_615.0})),
        (json!({"n": [1e21, 5e-324, -0.0]}), json!({"n": [1e21, 5e-324, -0.0]})),
        (json!({"empty": {}, "none": [], "": 0}), json!({"empty": {}, "none": [], "": 0})),
        (json!({}), json!({})),
    ] {
        assert_eq!(payload(decoded.clone()), expected, "{decoded}");
    }
}

#[test]
fn a_float_is_never_written_as_an_integer() {
    for (decoded, expected) in [
        ("4503599627370496", "4503599627370496.0"),
        ("9007199254740993", "9007199254740992.0"),
        ("-9223372036854775808", "-9.223372036854776e+18"),
        ("18446744073709551615", "1.8446744073709552e+19"),
        ("1000000000000000000000", "1e+21"),
        ("1e21", "1e+21"),
        ("5e-324", "5e-324"),
        ("-0", "-0.0"),
        ("4503599627370495", "4503599627370495"),
        ("1.0", "1.0"),
    ] {
        let number: Value = serde_json::from_str(decoded).expect("a number");
        assert_eq!(payload(json!({"n": number})).to_string(), format!(r#"{{"n":{expected}}}"#), "{decoded}");
    }
}

#[test]
fn what_is_nested_too_deep_becomes_text_at_the_deepest_legal_level() {
    // The payload itself is level 1: nine more objects may follow, with a scalar in the last.
    let deepest = nested(MAX_DEPTH - 1, json!({"scalar": 1}));
    assert_eq!(payload(deepest.clone()), deepest);
    let deeper = nested(MAX_DEPTH - 1, json!({"o": {"a.b": [null]}, "a": [1], "scalar": 1}));
    let expected = nested(MAX_DEPTH - 1, json!({"o": r#"{"a.b":[null]}"#, "a": "[1]", "scalar": 1}));
    assert_eq!(payload(deeper), expected);
    let mut arrays = json!([]);
    for _ in 0..20 {
        arrays = json!([arrays]);
    }
    assert!(payload(json!({"a": arrays})).to_string().contains(r#""[["#));
}

#[test]
fn a_long_text_is_cut_between_characters_and_marked() {
    let longest = "x".repeat(MAX_STRING_BYTES);
    assert_eq!(payload(json!({"t": longest})), json!({"t": longest}));
    for text in ["x".repeat(5000), "€".repeat(2000), "😀".repeat(1025)] {
        let fitted = payload(json!({"t": text}));
        let cut = fitted["t"].as_str().expect("a text");
        let kept = cut.strip_suffix(CUT_MARK).expect("the mark");
        assert!(text.starts_with(kept) && cut.len() <= MAX_STRING_BYTES && cut.len() > MAX_STRING_BYTES - 4);
    }
}

#[test]
fn the_largest_members_of_a_large_payload_give_way_first() {
    let history: Vec<_> = (0..500).map(|i| json!({"timestamp": i, "temperature": 21.1, "pm2.5": 7})).collect();
    let decoded = json!({"battery": 97, "temperature": 21.4, "history": history, "note": "n".repeat(4000)});
    let fitted = payload(decoded.clone());
    assert_eq!(fitted["history"], TOO_LARGE);
    for kept in ["battery", "temperature", "note"] {
        assert_eq!(fitted[kept], decoded[kept], "{kept}");
    }
    // The place is made inside an object where that is enough.
    let fitted = payload(json!({"bytes": decoded}));
    assert_eq!(fitted["bytes"]["history"], TOO_LARGE);
    assert_eq!(fitted["bytes"]["battery"], 97);
}

#[test]
fn forty_kilobytes_of_small_members_are_no_payload_for_a_twin() {
    let decoded: Map<_, _> = (0..2000).map(|i| (format!("register_{i:05}"), json!(i))).collect();
    assert_eq!(payload(Value::Object(decoded)), TOO_LARGE);
}

#[test]
fn a_patch_of_very_many_properties_loses_the_largest() {
    let mut many: Map<_, _> = (0..3000).map(|i| (format!("property{i:04}"), json!(i))).collect();
    many.insert("k".repeat(1000), json!(1));
    let fitted = fit_reported(many);
    assert_eq!(check(&fitted.patch), Ok(()));
    assert!(fitted.patch.len() > 900 && !fitted.patch.contains_key(&"k".repeat(1000)));
}

#[test]
fn notes_name_keys_but_no_values_and_are_few() {
    let secret = "secret-value".repeat(500);
    let fitted = fit_reported(object(json!({"serviceData": {"a.b": secret, "c": [null]}})));
    assert_eq!(
        fitted.notes,
        [
            "`a.b` is written as `a_x002E_b`",
            "`a.b` holds a text longer than 4096 bytes, cut",
            "`c` holds null in an array, written as the string `null`",
            "`a.b` is too large for the twin and is replaced by a marker",
        ]
        .map(|line| line.replace("`a.b` is too large", "`a_x002E_b` is too large"))
    );
    let many: Map<_, _> = (0..100).map(|i| (format!("key.{i}"), json!(1))).collect();
    let fitted = fit_reported(many);
    assert_eq!(fitted.notes.len(), 9);
    let hostile = format!("line\nbreak\u{1b}{}", "k".repeat(5000));
    let fitted = fit_reported(object(json!({hostile: 1})));
    assert!(fitted.notes.iter().all(|line| line.len() < 200 && !line.contains(char::is_control)));
}

proptest! {
    #[test]
    fn whatever_is_fitted_passes_the_hubs_rules(patch in any_object()) {
        let fitted = fit_reported(patch.clone());
        prop_assert_eq!(check(&fitted.patch), Ok(()));
        prop_assert_eq!(fitted.notes.is_empty(), fitted.patch == patch, "a change is noted, and nothing else");
        prop_assert_eq!(check(&fit_reported(fitted.patch).patch), Ok(()));
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant(patch in any_object()) {
        let fitted = fit_reported(patch).patch;
        let text = Value::Object(fitted.clone()).to_string();
        let read = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(check(&read), Ok(()), "no float turned into an integer on the way");
    }

    #[test]
    fn where_no_key_needs_an_escape_a_second_fit_changes_nothing(patch in object_with("[a-wA-W0-9_é-]{0,8}".boxed())) {
        let once = fit_reported(patch).patch;
        prop_assert_eq!(&fit_reported(once.clone()).patch, &once);
    }

    #[test]
    fn sibling_keys_never_become_one(keys in prop::collection::hash_set(any_key(), 0..16)) {
        let patch: Map<_, _> = keys.iter().map(|key| (key.clone(), json!(true))).collect();
        prop_assert_eq!(fit_reported(patch).patch.len(), keys.len());
    }

    #[test]
    fn a_key_is_written_alike_whatever_stands_beside_it(
        key in any_key(),
        siblings in prop::collection::hash_set(any_key(), 0..8),
    ) {
        let mut patch: Map<_, _> = siblings.into_iter().map(|sibling| (sibling, json!(0))).collect();
        patch.insert(key.clone(), json!(1));
        let fitted = fit_reported(patch).patch;
        prop_assert_eq!(fitted.get(&*escape(&key)), Some(&json!(1)));
    }
}

/// Fits real payloads: `PAYLOADS` names a file of JSON lines, each with a member `decoded_payload`.
#[test]
fn real_payloads_fit() {
    let Some(path) = std::env::var_os("PAYLOADS") else { return };
    let file = std::fs::File::open(&path).expect("the file that PAYLOADS names");
    let (mut total, mut changed) = (0, 0);
    for line in std::io::BufReader::new(file).lines() {
        let line: Value = serde_json::from_str(&line.expect("a line")).expect("a line of JSON");
        let patch = object(json!({"decodedPayload": line["decoded_payload"]}));
        let fitted = fit_reported(patch.clone());
        assert_eq!(check(&fitted.patch), Ok(()), "{line}");
        assert_eq!(fitted.notes.is_empty(), fitted.patch == patch, "{line}");
        total += 1;
        if !fitted.notes.is_empty() {
            changed += 1;
            println!("{}: {}", line["codec"], fitted.notes.join("; "));
        }
    }
    println!("{changed} of {total} payloads needed a change");
    assert!(total > 0, "no payload in {}", path.display());
}
