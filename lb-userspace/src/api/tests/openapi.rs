//! The description for programs and what is really answered.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::api::{
    order::Action,
    server::{OPENAPI, ROUTES},
    types::{OrderedServer, Override, RealServerState},
};

fn openapi() -> Value {
    serde_json::from_str(OPENAPI).expect("docs/openapi.json is JSON")
}

#[tokio::test]
async fn it_is_served() {
    let server = Server::start(Vec::new);
    let (status, body) = server.raw("GET /v1/openapi.json").await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["openapi"], "3.1.0");
}

#[tokio::test]
async fn it_has_every_path_and_method_and_no_other() {
    let document = openapi();
    let documented: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(documented, ROUTES.iter().map(|(path, _)| *path).collect());
    // Drops every reply, so what is asked for ends with 503.
    let server = Server::with_agent(async |request| drop(request));
    for path in documented {
        for method in ["get", "post", "put", "delete", "patch"] {
            let request = format!("{} {path}", method.to_ascii_uppercase());
            let (status, ..) = server.send(&request, "").await;
            let operation = &document["paths"][path][method];
            assert_eq!(status == 405, operation.is_null(), "{request}: {status}");
            if status != 405 {
                assert!(!operation["responses"][status.to_string()].is_null(), "{request}: {status}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                fields.values().for_each(|value| walk(value, document));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, document)),
            _ => {}
        }
    }
    let document = openapi();
    walk(&document, &document);
}

#[test]
fn answers_match_their_schemas() {
    let document = openapi();
    let check = |schema: &str, value: Value| {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        matches(&value, &schema, &document).unwrap_or_else(|error| panic!("{schema}{error}\n{value:#}"));
    };
    let mut status = status();
    check("Status", serde_json::to_value(&status).unwrap());
    check("Vrrp", serde_json::to_value(vrrp()).unwrap());
    check("VrrpOrder", json!(crate::api::vrrp::VrrpOrder { instance: "VI_50".into() }));
    check("DataPlaneOrder", json!({ "dataplane": "ipvs" }));
    status.vrrp = None;
    status.configuration.last_reload = None;
    status.persistence =
        crate::api::types::Persistence { pins: None, reason: Some("no".into()), adopted: false };
    let server = &mut status.virtual_servers[0].real_servers[0];
    for state in
        ["up", "down", "inhibited", "checking", "draining", "drained", "disabled", "removed", "no-route"]
    {
        server.state = serde_json::from_value::<RealServerState>(state.into()).unwrap();
        check("RealServer", serde_json::to_value(&*server).unwrap());
    }
    for ordered in [Override::Disable, Override::Weight { weight: 9 }, Override::Drain { until: None }] {
        server.ordered = Some(ordered);
        check("RealServer", serde_json::to_value(&*server).unwrap());
    }
    check("Status", serde_json::to_value(&status).unwrap());
    check("Connection", serde_json::to_value(connection(1)).unwrap());
    let address = "192.0.2.1:80".parse().unwrap();
    let servers = vec![OrderedServer { virtual_server: "web".into(), address, connections: 1 }];
    check("Ordered", serde_json::to_value(Ordered { servers, not_kept: None }).unwrap());
    check("StateEvent", json!(StateEvent { at: 1, subject: "web".into(), text: "up".into() }));
    let (warnings, needs_restart) = (vec!["a".into()], vec!["b".into()]);
    check("Reloaded", json!(Reloaded { added: 1, changed: 2, removed: 3, warnings, needs_restart }));
    check("Stop", json!(Stop { detach: true }));
    check("ErrorBody", json!(ErrorBody { error: "no".into() }));
    for action in [Action::Drain { timeout_seconds: Some(1) }, Action::Enable, Action::Weight { weight: 3 }] {
        let order = Order { server: "192.0.2.1".into(), virtual_server: None, action };
        check("Order", serde_json::to_value(order).unwrap());
    }
}

#[test]
fn the_comparison_finds_differences() {
    let document = openapi();
    let schema = json!({ "$ref": "#/components/schemas/Status" });
    let good = serde_json::to_value(status()).unwrap();
    matches(&good, &schema, &document).unwrap();
    for (pointer, key, value) in [
        ("", "new", json!(1)),
        ("/work", "reloads_succeeded", json!("1")),
        ("/work", "reloads_succeeded", json!(-1)),
        ("/virtual_servers/0", "protocol", json!("sctp")),
        ("/virtual_servers/0/real_servers/0", "address", json!(null)),
        ("/virtual_servers/0/real_servers/0/override", "action", json!("wait")),
        ("/virtual_servers/0/real_servers/0/checks/0", "new", json!(null)),
    ] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap()[key] = value;
        assert!(matches(&bad, &schema, &document).is_err(), "{pointer}/{key}");
    }
    let mut bad = good;
    bad["virtual_servers"][0].as_object_mut().unwrap().remove("quorum");
    assert!(matches(&bad, &schema, &document).is_err());
}

/// Whether `value` is what `schema` describes: the part of JSON Schema that the document uses. Stricter in one thing: a
/// field that the schema does not name is a mistake, so that none is forgotten.
fn matches(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(&reference[1..]).ok_or(format!(": no {reference}"))?;
        return matches(value, target, document);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let errors: Vec<_> =
            choices.iter().filter_map(|choice| matches(value, choice, document).err()).collect();
        return if errors.len() < choices.len() { Ok(()) } else { Err(errors.join(" or")) };
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        // Beside the properties of the whole: what differs from action to action.
        let fits = choices.iter().filter(|choice| {
            let properties = choice["properties"].as_object().unwrap();
            let named = value
                .as_object()
                .is_some_and(|fields| fields.keys().all(|name| properties.contains_key(name)));
            let required = choice["required"].as_array().into_iter().flatten();
            named
                && required.into_iter().all(|name| value.get(name.as_str().unwrap()).is_some())
                && properties.iter().all(|(name, schema)| {
                    value.get(name).is_none_or(|value| matches(value, schema, document).is_ok())
                })
        });
        return if fits.count() == 1 { Ok(()) } else { Err(": not one of the choices".into()) };
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!(": {value} is not {}", schema["const"]));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_right = types.contains(&is) || is == "integer" && types.contains(&"number");
    if !is_right {
        return Err(format!(": a value of type {is} where {types:?} is expected"));
    }
    if let (Some(minimum), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < minimum
    {
        return Err(format!(": {number} is less than {minimum}"));
    }
    if let (Some(words), Some(_)) = (schema["enum"].as_array(), value.as_str())
        && !words.contains(value)
    {
        return Err(format!(": {value} is not one of {words:?}"));
    }
    if let Some(values) = value.as_array() {
        for (index, value) in values.iter().enumerate() {
            matches(value, &schema["items"], document).map_err(|error| format!("[{index}]{error}"))?;
        }
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                return Err(format!(": {name} is missing"));
            }
        }
        for (name, value) in fields {
            let inner = schema["properties"].get(name).or(schema.get("additionalProperties"));
            let inner = inner.ok_or_else(|| format!(".{name}: not in the schema"))?;
            if inner.is_boolean() {
                return Err(format!(".{name}: not in the schema"));
            }
            matches(value, inner, document).map_err(|error| format!(".{name}{error}"))?;
        }
    }
    Ok(())
}
