//! The JSON Schema of the file, and the check of a tree against it (the door to `schemars`).

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json};

use super::{
    file::File,
    problem::nearest,
    tree::{Node, Shown, Span, Table, Value, join},
    value,
};

/// The JSON Schema (2020-12) of `ravelin.toml`, for editors.
pub fn schema() -> &'static Json {
    &SCHEMA
}

static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    schema.remove("default");
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema
});

/// Something that is wrong in a tree.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) span: Span,
    pub(super) key: String,
    pub(super) message: String,
    pub(super) meant: Option<String>,
    /// How much of the line may be shown.
    pub(super) shown: Shown,
    /// It is about something that is not there.
    pub(super) missing: bool,
}

/// Checks keys, types, ranges and the kinds of text; takes out what is wrong, so that the rest
/// can be read.
pub(super) fn check(tree: &mut Table, main: Span) -> Vec<Finding> {
    let mut checker = Checker::default();
    checker.table(tree, main, schema(), "");
    checker.findings
}

/// Whether a table may have parts in two files: tables by name may, and a table that holds such
/// tables may have those elsewhere, when it has nothing else there.
pub(super) fn may_meet(path: &str, first: &Table, second: &Table) -> bool {
    let parts = path.split('.').try_fold(schema(), child);
    parts.is_some_and(|schema| {
        let only_groups = |table: &Table| {
            table
                .keys()
                .all(|key| child(schema, key).is_some_and(is_group))
        };
        is_group(schema) || (holds_groups(schema) && (only_groups(first) || only_groups(second)))
    })
}

#[derive(Default)]
struct Checker {
    findings: Vec<Finding>,
    /// Keys that a misspelt one was probably meant to be: they are not missing as well.
    meant: Vec<String>,
}

impl Checker {
    /// `false` when the value cannot be read.
    fn node(&mut self, node: &mut Node, schema: &Json, path: &str) -> bool {
        let variants = schema.get("oneOf").and_then(Json::as_array);
        match (&mut node.value, variants) {
            (Value::Table(table), Some(variants)) => self.tagged(table, node.span, variants, path),
            (Value::String(text), Some(variants)) => {
                let span = node.span;
                let text = std::mem::take(text);
                let good = self.choice(&text, span, &constants(variants), path);
                node.value = Value::String(text);
                good
            }
            (value, Some(variants)) if !constants(variants).is_empty() => {
                self.wrong_kind(value.kind(), node.span, "a string", path)
            }
            (value, Some(_)) => self.wrong_kind(value.kind(), node.span, "a table", path),
            (value, None) => self.value(value, node.span, schema, path),
        }
    }

    fn value(&mut self, value: &mut Value, span: Span, schema: &Json, path: &str) -> bool {
        let is = |kind| has_type(schema, kind);
        match value {
            Value::Array(items) if is("array") => self.array(items, span, schema, path),
            Value::Boolean(_) if is("boolean") => true,
            Value::Integer(number) if is("integer") => self.integer(*number, span, schema, path),
            Value::String(text) if is("string") => self.string(text, span, schema, path),
            Value::Table(table) if is("object") => {
                self.table(table, span, schema, path);
                true
            }
            Value::Array(_)
            | Value::Boolean(_)
            | Value::Date
            | Value::Float
            | Value::Integer(_)
            | Value::String(_)
            | Value::Table(_)
            | Value::TooDeep => self.wrong_kind(value.kind(), span, &wanted(schema, path), path),
        }
    }

    fn table(&mut self, table: &mut Table, span: Span, schema: &Json, path: &str) {
        let names = schema.get("propertyNames").and_then(format_of);
        table.retain(|key, node| {
            let path = join(path, key);
            let Some(child) = child(schema, key) else {
                self.unknown_key(key, node.key, schema, &path);
                return false;
            };
            if let Some(Err(refused)) = names.map(|format| value::check(format, key)) {
                self.add(node.key, &path, refused.why, refused.meant);
                return false;
            }
            if is_group(schema) && wants_table(child) && !matches!(node.value, Value::Table(_)) {
                let table = path.strip_suffix(key).unwrap_or_default();
                let message = format!("must stand in a table with a name: [{table}NAME]");
                self.add(node.key, &path, message, None);
                return false;
            }
            self.node(node, child, &path)
        });
        // What was there and is wrong has been taken out above: it is not missing.
        let missing: Vec<String> = required(schema)
            .filter(|key| !table.contains_key(*key))
            .map(|key| join(path, key))
            .filter(|key| !self.findings.iter().any(|f| is_at_or_below(&f.key, key)))
            .filter(|key| !self.meant.contains(key))
            .collect();
        for key in missing {
            self.add(span, &key, "is missing".to_owned(), None);
            if let Some(last) = self.findings.last_mut() {
                last.missing = true;
            }
        }
    }

    /// A table whose kind its `type` says.
    fn tagged(&mut self, table: &mut Table, span: Span, variants: &[Json], path: &str) -> bool {
        let tag = |variant: &'static str, schema: &Json| {
            schema
                .pointer(&format!("/properties/{variant}/const"))
                .and_then(Json::as_str)
                .map(str::to_owned)
        };
        let known: Vec<String> = variants.iter().filter_map(|v| tag("type", v)).collect();
        let key = join(path, "type");
        let Some(written) = table.get("type") else {
            let message = format!("is missing: there are {}", known.join(", "));
            self.add(span, &key, message, None);
            return false;
        };
        let Value::String(text) = &written.value else {
            return self.wrong_kind(written.value.kind(), written.span, "a string", &key);
        };
        let text = text.clone();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        if !self.choice(&text, written.span, &known, &key) {
            return false;
        }
        if let Some(schema) = variants
            .iter()
            .find(|variant| tag("type", variant).as_deref() == Some(text.as_str()))
        {
            self.table(table, span, schema, path);
        }
        true
    }

    fn array(&mut self, items: &mut [Node], span: Span, schema: &Json, path: &str) -> bool {
        if number(schema, "minItems").is_some_and(|least| least > 0) && items.is_empty() {
            self.add(span, path, "must not be empty".to_owned(), None);
            return false;
        }
        let Some(schema) = schema.get("items") else {
            return true;
        };
        let mut good = true;
        for (index, item) in items.iter_mut().enumerate() {
            good &= self.node(item, schema, &format!("{path}[{index}]"));
        }
        good
    }

    fn integer(&mut self, value: Option<i64>, span: Span, schema: &Json, path: &str) -> bool {
        let least = number(schema, "minimum").unwrap_or(i64::MIN);
        let most = number(schema, "maximum").unwrap_or(i64::MAX);
        if value.is_some_and(|value| (least..=most).contains(&value)) {
            return true;
        }
        self.add(span, path, format!("must be from {least} to {most}"), None);
        false
    }

    fn string(&mut self, text: &str, span: Span, schema: &Json, path: &str) -> bool {
        if let Some(Json::String(only)) = schema.get("const") {
            return self.choice(text, span, &[only], path);
        }
        if let Some(known) = schema.get("enum").and_then(Json::as_array) {
            let known: Vec<&str> = known.iter().filter_map(Json::as_str).collect();
            return self.choice(text, span, &known, path);
        }
        if number(schema, "minLength").is_some_and(|least| least > 0) && text.is_empty() {
            self.add(span, path, "must not be empty".to_owned(), None);
            return false;
        }
        let format = format_of(schema).unwrap_or_default();
        let Err(refused) = value::check(format, text) else {
            return true;
        };
        let secret = SECRET_FORMATS.contains(&format);
        let message = if secret || text.is_empty() || (text.contains("://") && text.contains('@')) {
            refused.why
        } else {
            format!("{} {}", quoted(text), refused.why)
        };
        let meant = refused.meant.map(|meant| quoted(&meant));
        self.add(span, path, message, meant);
        self.show(if secret { Shown::Before } else { Shown::Line });
        false
    }

    /// One text of a few.
    fn choice(&mut self, text: &str, span: Span, known: &[&str], path: &str) -> bool {
        if known.contains(&text) {
            return true;
        }
        let there_are: Vec<String> = known.iter().map(|known| quoted(known)).collect();
        let message = format!(
            "{} is unknown: there {} {}",
            quoted(text),
            if known.len() == 1 { "is" } else { "are" },
            there_are.join(", ")
        );
        let meant = nearest(text, known.iter().copied()).map(|meant| quoted(&meant));
        self.add(span, path, message, meant);
        false
    }

    fn unknown_key(&mut self, key: &str, span: Span, schema: &Json, path: &str) {
        let known = || properties(schema).into_iter().flat_map(Map::keys);
        let meant = nearest(key, known().map(String::as_str));
        if let (Some(meant), Some((table, _))) = (&meant, path.rsplit_once(key)) {
            self.meant
                .push(join(table.trim_end_matches(['.', '"']), meant));
        }
        let elsewhere = meant.is_none().then(|| table_with(key)).flatten();
        let message = match elsewhere {
            Some(table) => format!("is an unknown key here; there is one in {table}"),
            None => "is an unknown key".to_owned(),
        };
        self.add(span, path, message, meant);
        // A misspelt key may be that of a secret.
        self.show(Shown::To);
    }

    fn show(&mut self, shown: Shown) {
        if let Some(last) = self.findings.last_mut() {
            last.shown = shown;
        }
    }

    fn wrong_kind(&mut self, kind: &str, span: Span, wanted: &str, path: &str) -> bool {
        self.add(span, path, format!("must be {wanted}, not {kind}"), None);
        false
    }

    fn add(&mut self, span: Span, key: &str, message: String, meant: Option<String>) {
        if self.findings.len() == MAX_FINDINGS {
            return;
        }
        self.findings.push(Finding {
            span,
            key: key.to_owned(),
            message,
            meant,
            shown: Shown::Line,
            missing: false,
        });
    }
}

/// A text in quotes, escaped and not too long.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() > LONGEST_QUOTE {
        let start: String = text.chars().take(LONGEST_QUOTE).collect();
        return format!("{start:?}…");
    }
    format!("{text:?}")
}

/// Whether a key is another, or stands in its table or array.
pub(super) fn is_at_or_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The properties of a schema of one table.
pub(super) fn properties(schema: &Json) -> Option<&Map<String, Json>> {
    schema.get("properties").and_then(Json::as_object)
}

/// The keys that must be there.
pub(super) fn required(schema: &Json) -> impl Iterator<Item = &str> {
    schema
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
}

/// Tables by name.
pub(super) fn is_group(schema: &Json) -> bool {
    group_member(schema).is_some() && has_type(schema, "object")
}

/// The schema of each member of a group.
pub(super) fn group_member(schema: &Json) -> Option<&Json> {
    schema
        .get("additionalProperties")
        .filter(|value| value.is_object())
}

/// The kind of text.
pub(super) fn format_of(schema: &Json) -> Option<&str> {
    schema.get("format").and_then(Json::as_str)
}

/// Whether a value may be of a type.
pub(super) fn has_type(schema: &Json, kind: &str) -> bool {
    match schema.get("type") {
        Some(Json::String(only)) => only == kind,
        Some(Json::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    }
}

/// The texts of a choice.
pub(super) fn constants(variants: &[Json]) -> Vec<&str> {
    variants
        .iter()
        .flat_map(|variant| {
            let several = variant.get("enum").and_then(Json::as_array);
            variant
                .get("const")
                .into_iter()
                .chain(several.into_iter().flatten())
        })
        .filter_map(Json::as_str)
        .collect()
}

fn holds_groups(schema: &Json) -> bool {
    properties(schema).is_some_and(|properties| properties.values().any(is_group))
}

fn child<'a>(schema: &'a Json, key: &str) -> Option<&'a Json> {
    properties(schema)
        .and_then(|properties| properties.get(key))
        .or_else(|| group_member(schema))
}

fn number(schema: &Json, name: &str) -> Option<i64> {
    schema.get(name).and_then(Json::as_i64)
}

fn wants_table(schema: &Json) -> bool {
    let variants = schema.get("oneOf").and_then(Json::as_array);
    has_type(schema, "object") || variants.is_some_and(|variants| constants(variants).is_empty())
}

fn wanted(schema: &Json, path: &str) -> String {
    let kinds = [
        ("string", "a string"),
        ("integer", "a number"),
        ("boolean", "true or false"),
        ("array", "an array"),
    ];
    if is_group(schema) {
        return format!("tables by name, such as [{path}.NAME]");
    }
    kinds
        .iter()
        .find(|(kind, _)| has_type(schema, kind))
        .map_or("a table", |(_, text)| text)
        .to_owned()
}

/// The only table that knows a key, for somebody who put it into the wrong one.
fn table_with(key: &str) -> Option<String> {
    let knows = |schema: &Json| {
        let variants = schema.get("oneOf").and_then(Json::as_array);
        variants
            .into_iter()
            .flatten()
            .chain([schema])
            .any(|schema| properties(schema).is_some_and(|keys| keys.contains_key(key)))
    };
    let groups = properties(schema())?.iter().filter_map(|(name, schema)| {
        let (schema, table) = match group_member(schema) {
            Some(member) => (member, format!("[{name}.NAME]")),
            None => (schema, format!("[{name}]")),
        };
        knows(schema).then_some(table)
    });
    let top = knows(schema()).then(|| "the top of the file, above all tables".to_owned());
    let mut places = top.into_iter().chain(groups);
    let only = places.next()?;
    places.next().is_none().then_some(only)
}

/// Takes out null, which TOML has not (options are keys that are not there), and lifts the mark of
/// a required key to its table's list.
fn tidy(schema: &mut Json) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(tidy),
        Json::Object(object) => {
            if object.get("default").is_some_and(Json::is_null) {
                object.remove("default");
            }
            if let Some(Json::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Json::Array(mut variants)) = object.remove("anyOf") {
                variants.retain(|variant| variant.get("type") != Some(&Json::from("null")));
                if let [Json::Object(only)] = variants.as_slice() {
                    for (key, value) in only {
                        object.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                } else {
                    object.insert("anyOf".to_owned(), Json::Array(variants));
                }
            }
            let mut required = Vec::new();
            if let Some(Json::Object(properties)) = object.get_mut("properties") {
                for (key, property) in properties {
                    let marked = |schema: &mut Map<String, Json>| {
                        schema.remove("default");
                        schema.remove("required")
                    };
                    if property.get("required") == Some(&Json::Bool(true))
                        && property.as_object_mut().and_then(marked).is_some()
                    {
                        required.push(Json::from(key.as_str()));
                    }
                }
            }
            if !required.is_empty() {
                let list = object
                    .entry("required")
                    .or_insert_with(|| Json::Array(Vec::new()));
                if let Json::Array(list) = list {
                    list.append(&mut required);
                }
            }
            object.values_mut().for_each(tidy);
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// Kinds of text whose value may be a secret by mistake: never repeated.
const SECRET_FORMATS: [&str; 2] = ["secret", "key-file"];

/// Nobody reads more.
const MAX_FINDINGS: usize = 200;

const LONGEST_QUOTE: usize = 60;
