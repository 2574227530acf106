//! The operations of a transaction (RFC 7047, section 5.2).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::value::{Datum, Uuid};
use super::{OvsdbError, protocol};

/// A row, or the part of one that was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    columns: BTreeMap<String, Datum>,
}

impl Row {
    /// A row of these columns.
    pub fn new<'a, V: Into<Datum>>(columns: impl IntoIterator<Item = (&'a str, V)>) -> Self {
        Self { columns: columns.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect() }
    }

    /// The same with one more column.
    pub fn with(mut self, column: &str, value: impl Into<Datum>) -> Self {
        self.columns.insert(column.to_owned(), value.into());
        self
    }

    /// A column; None if it was not asked for.
    pub fn get(&self, column: &str) -> Option<&Datum> {
        self.columns.get(column)
    }

    /// The row's own name, from the column `_uuid`.
    pub fn uuid(&self) -> Option<Uuid> {
        self.get("_uuid")?.uuid()
    }

    /// The text in a column; empty if there is none.
    pub fn text(&self, column: &str) -> &str {
        self.get(column).and_then(Datum::text).unwrap_or_default()
    }

    /// The number in a column.
    pub fn integer(&self, column: &str) -> Option<i64> {
        self.get(column)?.integer()
    }

    /// The rows that a column refers to.
    pub fn uuids(&self, column: &str) -> Vec<Uuid> {
        self.get(column).map(Datum::uuids).unwrap_or_default()
    }

    /// The map of texts in a column.
    pub fn pairs(&self, column: &str) -> BTreeMap<&str, &str> {
        self.get(column).map(Datum::pairs).unwrap_or_default()
    }

    fn json(&self) -> Value {
        let columns = self.columns.iter().map(|(name, value)| (name.clone(), value.json()));
        Value::Object(columns.collect::<Map<_, _>>())
    }

    fn names(&self) -> String {
        self.columns.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn read(value: &Value) -> Result<Self, OvsdbError> {
        let columns = value.as_object().ok_or_else(|| protocol("a row", value))?;
        let columns = columns.iter().map(|(name, value)| Ok((name.clone(), Datum::read(value)?)));
        Ok(Self { columns: columns.collect::<Result<_, OvsdbError>>()? })
    }
}

/// How a column of many elements or a number is changed in place.
#[derive(Debug, Clone, PartialEq)]
pub enum Mutation {
    /// Add elements of a set or map; those that are there already stay (for maps: with their old values).
    Insert(Datum),
    /// Remove elements of a set; of a map, by key and value or by a set of keys.
    Delete(Datum),
    /// Add to a number.
    Add(i64),
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation {
    json: Value,
    /// For errors: `insert into Port (name, tag)`.
    text: String,
}

/// Which rows: each column compared by a function of RFC 7047 (`==`, `includes`, `>=` …). None is all rows.
type Condition<'a> = (&'a str, &'a str, Datum);

fn conditions(conditions: &[Condition]) -> Value {
    Value::Array(conditions.iter().map(|(column, function, value)| json!([column, function, value.json()])).collect())
}

impl Operation {
    pub(super) fn json(&self) -> Value {
        self.json.clone()
    }

    pub(super) fn describe(&self) -> String {
        self.text.clone()
    }

    /// Insert a row. `name` is what [`Uuid::New`] calls it in the same transaction.
    pub fn insert(table: &str, name: Option<&str>, row: &Row) -> Self {
        let mut json = json!({ "op": "insert", "table": table, "row": row.json() });
        if let Some(name) = name {
            json["uuid-name"] = json!(name);
        }
        Self { json, text: format!("insert into {table} ({})", row.names()) }
    }

    /// The given columns of the rows that meet all conditions.
    pub fn select(table: &str, r#where: &[Condition], columns: &[&str]) -> Self {
        let json = json!({ "op": "select", "table": table, "where": conditions(r#where), "columns": columns });
        Self { json, text: format!("select from {table} ({})", columns.join(", ")) }
    }

    /// Set columns of the rows that meet all conditions.
    pub fn update(table: &str, r#where: &[Condition], row: &Row) -> Self {
        let json = json!({ "op": "update", "table": table, "where": conditions(r#where), "row": row.json() });
        Self { json, text: format!("update {table} ({})", row.names()) }
    }

    /// Change columns of the rows that meet all conditions in place.
    pub fn mutate(table: &str, r#where: &[Condition], mutations: &[(&str, Mutation)]) -> Self {
        let list = mutations.iter().map(|(column, mutation)| match mutation {
            Mutation::Insert(value) => json!([column, "insert", value.json()]),
            Mutation::Delete(value) => json!([column, "delete", value.json()]),
            Mutation::Add(number) => json!([column, "+=", number]),
        });
        let list = Value::Array(list.collect());
        let columns: Vec<&str> = mutations.iter().map(|(column, _)| *column).collect();
        let json = json!({ "op": "mutate", "table": table, "where": conditions(r#where), "mutations": list });
        Self { json, text: format!("change {table} ({})", columns.join(", ")) }
    }

    /// Delete the rows that meet all conditions.
    pub fn delete(table: &str, r#where: &[Condition]) -> Self {
        let json = json!({ "op": "delete", "table": table, "where": conditions(r#where) });
        Self { json, text: format!("delete from {table}") }
    }

    /// Hold the transaction back until some row meets all conditions; refused with `timed out` after `limit`.
    pub fn wait_for_row(table: &str, r#where: &[Condition], limit: Duration) -> Self {
        let columns: Vec<&str> = r#where.iter().map(|(column, ..)| *column).collect();
        let json = json!({
            "op": "wait",
            "timeout": u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            "table": table,
            "where": conditions(r#where),
            "columns": columns,
            // The rows that meet the conditions differ from none.
            "until": "!=",
            "rows": [],
        });
        Self { json, text: format!("wait for {table} ({})", columns.join(", ")) }
    }

    /// Refuse the transaction unless exactly the given rows meet all conditions.
    pub fn assert_rows(table: &str, r#where: &[Condition], rows: &[Row]) -> Self {
        let mut columns: Vec<&str> = rows.iter().flat_map(|row| row.columns.keys()).map(String::as_str).collect();
        columns.extend(r#where.iter().map(|(column, ..)| *column).filter(|_| rows.is_empty()));
        columns.sort_unstable();
        columns.dedup();
        let json = json!({
            "op": "wait",
            "timeout": 0,
            "table": table,
            "where": conditions(r#where),
            "columns": columns,
            "until": "==",
            "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        Self { json, text: format!("check {table} ({})", columns.join(", ")) }
    }

    /// A note in the database's log.
    pub fn comment(text: &str) -> Self {
        Self { json: json!({ "op": "comment", "comment": text }), text: "write a comment".to_owned() }
    }
}
