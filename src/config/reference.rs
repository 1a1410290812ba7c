//! The reference of every key, as Markdown, from the schema.

use std::fmt::Write;

use serde_json::Value as Json;

use super::schema::{self, schema};

/// Every table and key with type, default and meaning: `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    table(&mut page, "", schema(), "");
    page
}

/// One table of the file, then the tables in it.
fn table(page: &mut String, path: &str, schema: &Json, summary: &str) {
    if let Some(variants) = schema.get("oneOf").and_then(Json::as_array) {
        for variant in variants {
            let kind = variant.pointer("/properties/type/const");
            let kind = kind.and_then(Json::as_str).unwrap_or_default();
            let title = format!("{path}` with `type = \"{kind}\"");
            keys(page, &title, variant, description(variant));
        }
        return;
    }
    keys(page, path, schema, summary);
    for (key, value) in schema::properties(schema).into_iter().flatten() {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        if let Some(item) = value.get("items").filter(|item| is_table(item)) {
            table(page, &format!("[{path}]"), item, description(value));
        } else if let Some(member) = schema::group_member(value).filter(|m| is_table(m)) {
            table(page, &format!("{path}.NAME"), member, description(value));
        } else if is_table(value) {
            table(page, &path, value, description(value));
        }
    }
}

fn keys(page: &mut String, path: &str, schema: &Json, summary: &str) {
    let title = if path.is_empty() {
        "Above all tables".to_owned()
    } else if let Some((table, rest)) = path.split_once('`') {
        format!("`[{table}]`{rest}`")
    } else {
        format!("`[{path}]`")
    };
    let required: Vec<&str> = schema::required(schema).collect();
    let mut rows = String::new();
    for (key, value) in schema::properties(schema).into_iter().flatten() {
        let nested = is_table(value)
            || value.get("items").is_some_and(is_table)
            || schema::group_member(value).is_some_and(is_table);
        if nested || value.get("const").is_some() {
            continue;
        }
        let default = match value.get("default") {
            _ if required.contains(&key.as_str()) => "**required**".to_owned(),
            Some(Json::Array(items)) if items.is_empty() => "`[]`".to_owned(),
            Some(Json::Object(_)) | None => "none".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            rows,
            "| `{key}` | {} | {default} | {} |",
            kind(value),
            meaning(value)
        );
    }
    let _infallible = writeln!(page, "\n## {title}");
    if !summary.is_empty() {
        let _infallible = write!(page, "\n{}\n", one_line(summary));
    }
    if !rows.is_empty() {
        let _infallible = write!(page, "\n| key | type | default | meaning |\n{RULE}{rows}");
    }
}

/// Something that is written as a table of its own.
fn is_table(schema: &Json) -> bool {
    schema::properties(schema).is_some()
        || schema::group_member(schema).is_some_and(is_table)
        || schema
            .get("oneOf")
            .and_then(Json::as_array)
            .is_some_and(|variants| variants.iter().any(is_table))
}

fn kind(schema: &Json) -> String {
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    if let Some(member) = schema::group_member(schema) {
        let names = schema.get("propertyNames").and_then(schema::format_of);
        return format!("table: {} = {}", names.unwrap_or("name"), kind(member));
    }
    if let Some(variants) = schema.get("oneOf").and_then(Json::as_array) {
        let texts: Vec<String> = schema::constants(variants)
            .iter()
            .map(|text| format!("`\"{text}\"`"))
            .collect();
        return texts.join(", ");
    }
    let bound = |name| schema.get(name).and_then(Json::as_u64);
    match schema::format_of(schema) {
        Some(format) if schema::has_type(schema, "string") => format.to_owned(),
        _ if schema::has_type(schema, "boolean") => "boolean".to_owned(),
        _ if schema::has_type(schema, "integer") => match (bound("minimum"), bound("maximum")) {
            (Some(least), Some(most)) => format!("number, {least} to {most}"),
            _ => "number".to_owned(),
        },
        _ => "text".to_owned(),
    }
}

/// What a key means, with what each choice means.
fn meaning(schema: &Json) -> String {
    let mut text = one_line(description(schema));
    let variants = schema.get("oneOf").and_then(Json::as_array);
    for variant in variants.into_iter().flatten() {
        if let Some(choice) = variant.get("const").and_then(Json::as_str) {
            let _infallible = write!(text, " `{choice}`: {}", one_line(description(variant)));
        }
    }
    text.replace('|', "\\|")
}

fn description(schema: &Json) -> &str {
    schema
        .get("description")
        .and_then(Json::as_str)
        .unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const RULE: &str = "| --- | --- | --- | --- |\n";

const INTRODUCTION: &str = "\
# Every key of `ravelin.toml`

`examples/ravelin.toml` shows all of them at work. `ravelin check -c FILE` names every problem of
a file at once, `ravelin check --schema` prints the JSON Schema for editors, and
`ravelin check --reference` prints this page.

More files may stand in `conf.d/` beside `ravelin.toml`: `*.toml`, read in the order of their
names. Each adds tables. The same table or key in two files is an error, and so is a key that is
not listed here. Paths are relative to the file that names them.

| type | how it is written |
| --- | --- |
| address | `\"10.0.0.1:443\"`, `\"[2001:db8::1]:443\"` |
| ca | a PEM file, or `\"system\"` for what the operating system trusts |
| dns-server | an address; the port is 53 unless written |
| domain-name | a DNS name, no address |
| attribute | an LDAP attribute |
| characters | punctuation, except `/`, `\\`, `%`, `?`, `#` and `.` |
| cookie-name | the name of a cookie |
| duration | a number and `ms`, `s`, `min`, `h` or `d`: `\"15min\"`; more than zero, at most 3650 days |
| duration-or-zero | the same, or `\"0s\"` |
| file-pattern | a file; one `*` in its last segment stands for all that match |
| host-header | a host, perhaps with a port |
| ip-address | `\"10.0.0.1\"`, `\"2001:db8::1\"` |
| key-file | `\"file:PATH\"`, readable by its owner and group only |
| ldap-filter | one filter in parentheses (RFC 4515) |
| ldap-url | `\"ldaps://HOST\"` or `\"ldap://HOST\"`, perhaps with a port |
| log-filter | a level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or levels by module: `\"info,ravelin::tls=debug\"` |
| log-output | `\"stdout\"`, `\"off\"` or `\"file:PATH\"` |
| network | `\"10.0.0.0/8\"`, `\"2001:db8::/32\"` |
| node-url | `\"https://HOST\"` or `\"http://HOST\"`, perhaps with a port; no path |
| path | a file, relative to the file that names it |
| path-prefix | whole segments of a URL's path: `\"/\"`, `\"/sales\"` |
| pin | `\"sha256/\"` and the base64 of the SHA-256 of a subject public key |
| probe-path | path and query as they are sent |
| secret | `\"file:PATH\"` (readable by its owner and group only) or `\"env:NAME\"`; never the secret itself |
| size | a number and `B`, `KiB`, `MiB`, `GiB` or `TiB`: `\"64KiB\"`; or a number of bytes |
| text | any text that is not empty; names of other tables are texts |
";
