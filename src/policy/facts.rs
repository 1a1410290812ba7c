//! What can be said about one policy by reading it: what it depends on, and what cannot be meant.

use cedar_policy::{Effect, EntityUid, Policy};
use serde_json::Value;

use super::set::Facts;
use crate::permit::Target;

/// Reads a policy that has been parsed: its facts, and what is wrong with it although it fits
/// the schema.
pub(super) fn read(policy: &Policy) -> (Facts, Vec<String>) {
    let mut facts = Facts {
        forbids: policy.effect() == Effect::Forbid,
        // Until the text says otherwise.
        reads_address: true,
        reads_source: true,
    };
    let mut problems = Vec::new();
    match policy.to_json() {
        Ok(json) => {
            facts.reads_address = false;
            facts.reads_source = false;
            for_each_value(&json, |value| inspect(value, &mut facts, &mut problems));
        }
        Err(error) => problems.push(format!("cannot be read: {error}")),
    }
    problems.extend(policy.entity_literals().iter().filter_map(odd_target));
    (facts, problems)
}

fn inspect(value: &Value, facts: &mut Facts, problems: &mut Vec<String>) {
    match attribute(value, ".") {
        Some("address") => facts.reads_address = true,
        Some("source") => facts.reads_source = true,
        Some(_) | None => {}
    }
    // By name and port alone a target has no address yet. `has` would turn that into an answer
    // instead of an open question.
    if attribute(value, "has") == Some("address") {
        facts.reads_address = true;
        problems.push("`has address` is not needed: write the condition without it".to_owned());
    }
    for text in hosts_compared(value) {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            problems.push(format!(
                "\"{text}\" never matches: hosts are in lower case here"
            ));
        } else if text.len() > 1 && text.ends_with('.') {
            problems.push(format!(
                "\"{text}\" never matches: hosts have no final dot here"
            ));
        }
    }
}

/// The attribute that this expression reads or asks for.
fn attribute<'a>(value: &'a Value, operator: &str) -> Option<&'a str> {
    value.get(operator)?.get("attr")?.as_str()
}

/// The literal texts that this expression compares with `resource.host`.
fn hosts_compared(value: &Value) -> Vec<String> {
    let mut texts = Vec::new();
    for operator in ["==", "!=", "contains", "like"] {
        let Some(operands) = value.get(operator) else {
            continue;
        };
        let sides = [operands.get("left"), operands.get("right")];
        if !sides.iter().flatten().any(|side| is_host(side)) {
            continue;
        }
        for side in sides.into_iter().flatten() {
            texts.extend(side.get("Value").and_then(Value::as_str).map(str::to_owned));
            let set = side.get("Set").and_then(Value::as_array);
            let members = set.into_iter().flatten();
            texts.extend(members.filter_map(|m| m.get("Value")?.as_str().map(str::to_owned)));
        }
        texts.extend(operands.get("pattern").and_then(pattern));
    }
    texts
}

fn is_host(value: &Value) -> bool {
    attribute(value, ".") == Some("host")
}

/// A pattern as it was written.
fn pattern(value: &Value) -> Option<String> {
    let parts = value.as_array()?.iter();
    Some(
        parts
            .map(|part| part.get("Literal").and_then(Value::as_str).unwrap_or("*"))
            .collect(),
    )
}

/// A target that no request can name, because it is not spelt as the gateway spells it.
fn odd_target(entity: &EntityUid) -> Option<String> {
    let id = entity.id().unescaped();
    if entity.type_name().basename() != "Target" {
        return None;
    }
    match Target::parse(id) {
        Ok(target) if target.to_string() == id => None,
        Ok(target) => Some(format!(
            "Target::\"{id}\" never matches: write Target::\"{target}\""
        )),
        Err(_) => Some(format!(
            "Target::\"{id}\" never matches: a target is \"host:port\""
        )),
    }
}

/// Calls `visit` with every value inside. Without recursion: how deep a policy nests is up to
/// its author.
fn for_each_value(root: &Value, mut visit: impl FnMut(&Value)) {
    let mut rest = vec![root];
    while let Some(value) = rest.pop() {
        visit(value);
        match value {
            Value::Array(values) => rest.extend(values.iter().rev()),
            Value::Object(members) => rest.extend(members.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
