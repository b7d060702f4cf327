//! The three patch formats: merge, strategic merge, JSON patch.

use serde_json::{Map, Value};

/// A patch that does not fit; the text is for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadPatch(String);

/// Lists of the core types that a strategic merge merges item by item, with the field that identifies an item.
const MERGE_KEYS: [(&str, &str); 8] = [
    ("conditions", "type"),
    ("addresses", "type"),
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("ownerReferences", "uid"),
    ("podIPs", "ip"),
];

/// JSON merge patch, RFC 7386: null removes.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    let fields = as_object(target);
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Strategic merge: as a merge patch, but known lists of structures are merged by their key; directives (`$patch: delete`) are
/// obeyed in such lists and ignored elsewhere.
pub(super) fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    let fields = as_object(target);
    for (name, change) in changes.iter().filter(|(name, _)| !name.starts_with('$')) {
        let key = MERGE_KEYS.iter().find(|(list, _)| list == name).map(|(_, key)| *key);
        match (change, key) {
            (Value::Null, _) => drop(fields.remove(name)),
            (Value::Array(items), Some(key)) => {
                let list = fields.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(list, items, key);
            }
            _ => strategic(fields.entry(name.clone()).or_insert(Value::Null), change),
        }
    }
}

fn merge_list(list: &mut Value, items: &[Value], key: &str) {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Value::Array(present) = list else { return };
    for item in items {
        let position = present.iter().position(|one| one[key] == item[key]);
        match (position, item["$patch"].as_str()) {
            (Some(position), Some("delete")) => drop(present.remove(position)),
            (None, Some("delete")) => {}
            (Some(position), _) => strategic(&mut present[position], item),
            (None, _) => {
                let mut new = Value::Null;
                strategic(&mut new, item);
                present.push(new);
            }
        }
    }
}

fn as_object(target: &mut Value) -> &mut Map<String, Value> {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    match target {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("it was made an object above")
        }
    }
}

/// JSON patch, RFC 6902.
pub(super) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), BadPatch> {
    let operations = patch
        .as_array()
        .ok_or_else(|| BadPatch("a JSON patch is a list of operations".to_owned()))?;
    operations.iter().try_for_each(|operation| apply(target, operation))
}

fn apply(target: &mut Value, operation: &Value) -> Result<(), BadPatch> {
    let text = |field: &str| {
        operation[field]
            .as_str()
            .ok_or_else(|| BadPatch(format!("an operation lacks {field:?}: {operation}")))
    };
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| BadPatch(format!("an operation lacks \"value\": {operation}")))
    };
    let path = text("path")?;
    match text("op")? {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => {
            *find(target, path)? = value()?;
            Ok(())
        }
        "move" => {
            let moved = remove(target, text("from")?)?;
            add(target, path, moved)
        }
        "copy" => {
            let copied = find(target, text("from")?)?.clone();
            add(target, path, copied)
        }
        "test" if *find(target, path)? == value()? => Ok(()),
        "test" => Err(BadPatch(format!("testing path {path} has failed"))),
        other => Err(BadPatch(format!("there is no operation {other:?}"))),
    }
}

fn missing(path: &str) -> BadPatch {
    BadPatch(format!("{path} is missing"))
}

fn find<'a>(target: &'a mut Value, path: &str) -> Result<&'a mut Value, BadPatch> {
    target.pointer_mut(path).ok_or_else(|| missing(path))
}

/// The container a path ends in, and the unescaped last part of the path.
fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), BadPatch> {
    let (above, last) = path.rsplit_once('/').ok_or_else(|| missing(path))?;
    Ok((find(target, above)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), BadPatch> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (container, last) = parent(target, path)?;
    match container {
        Value::Object(fields) => {
            fields.insert(last, value);
            Ok(())
        }
        Value::Array(items) if last == "-" => {
            items.push(value);
            Ok(())
        }
        Value::Array(items) => {
            let index = last.parse().ok().filter(|index| *index <= items.len());
            items.insert(index.ok_or_else(|| missing(path))?, value);
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(missing(path)),
    }
}

fn remove(target: &mut Value, path: &str) -> Result<Value, BadPatch> {
    let (container, last) = parent(target, path)?;
    let removed = match container {
        Value::Object(fields) => fields.remove(&last),
        Value::Array(items) => match last.parse() {
            Ok(index) if items.get::<usize>(index).is_some() => Some(items.remove(index)),
            _ => None,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    removed.ok_or_else(|| missing(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_sets_and_removes() {
        let mut object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        merge(
            &mut object,
            &json!({"a": {"b": null, "c": [3], "e": {"f": null, "g": 1}}}),
        );
        assert_eq!(object, json!({"a": {"c": [3], "e": {"g": 1}}, "d": 1}));
    }

    #[test]
    fn a_strategic_patch_merges_known_lists() {
        let mut object = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "r"}]}});
        let patch = json!({"status": {
            "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "Other"}],
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "Other", "status": "True"}],
        }});
        strategic(&mut object, &patch);
        let conditions = json!([
            {"type": "Ready", "status": "False", "reason": "r"}, {"type": "Other", "status": "True"},
        ]);
        assert_eq!(object, json!({"status": {"conditions": conditions}}));
        strategic(
            &mut object,
            &json!({"status": {"conditions": [{"type": "Ready", "$patch": "delete"}]}}),
        );
        assert_eq!(object["status"]["conditions"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_json_patch_does_each_operation() {
        let mut object = json!({"m": {"a/b": "1", "list": [1, 2]}});
        let patch = json!([
            {"op": "test", "path": "/m/a~1b", "value": "1"},
            {"op": "replace", "path": "/m/a~1b", "value": "2"},
            {"op": "add", "path": "/m/list/-", "value": 3},
            {"op": "add", "path": "/m/list/0", "value": 0},
            {"op": "copy", "from": "/m/list/1", "path": "/m/first"},
            {"op": "move", "from": "/m/first", "path": "/m/one"},
            {"op": "remove", "path": "/m/list/2"},
        ]);
        json_patch(&mut object, &patch).unwrap();
        assert_eq!(object, json!({"m": {"a/b": "2", "list": [0, 1, 3], "one": 1}}));
        for bad in [
            json!([{"op": "test", "path": "/m/one", "value": 2}]),
            json!([{"op": "remove", "path": "/m/none"}]),
            json!([{"op": "add", "path": "/none/none", "value": 1}]),
            json!([{"op": "add", "path": "/m/x"}]),
            json!([{"op": "sing", "path": "/m"}]),
            json!({}),
        ] {
            assert!(json_patch(&mut object.clone(), &bad).is_err(), "{bad}");
        }
    }
}
