//! Label and field selectors.

use serde_json::Value;

use super::resource::Storage;

/// One requirement on a label or field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Is(String, Vec<String>),
    IsNot(String, Vec<String>),
    Exists(String),
    IsAbsent(String),
}

/// Which objects a list or watch is about. All requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

/// A selector that cannot be understood; the text is for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadSelector(String);

impl Selector {
    pub(super) fn parse(storage: Storage, labels: &str, fields: &str) -> Result<Self, BadSelector> {
        let labels = split(labels)
            .map(|text| label_requirement(&text))
            .collect::<Result<_, _>>()?;
        let fields: Vec<_> = split(fields)
            .map(|text| field_requirement(&text))
            .collect::<Result<_, _>>()?;
        for requirement in &fields {
            let (Requirement::Is(name, _) | Requirement::IsNot(name, _)) = requirement else {
                continue;
            };
            if !fields_of(storage).contains(&name.as_str()) {
                return Err(BadSelector(format!("field label not supported: {name}")));
            }
        }
        Ok(Self { labels, fields })
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"][name].as_str().map(str::to_owned);
        let field = |name: &str| Some(field_of(object, name));
        self.labels.iter().all(|requirement| requirement.holds(label))
            && self.fields.iter().all(|requirement| requirement.holds(field))
    }

    /// Whether it lets everything pass.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

impl Requirement {
    fn holds(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::Is(name, values) => value(name).is_some_and(|value| values.contains(&value)),
            // Absent labels are unequal to everything.
            Self::IsNot(name, values) => value(name).is_none_or(|value| !values.contains(&value)),
            Self::Exists(name) => value(name).is_some(),
            Self::IsAbsent(name) => value(name).is_none(),
        }
    }
}

/// Fields that the API server can select by.
fn fields_of(storage: Storage) -> &'static [&'static str] {
    match storage {
        Storage::Nodes => &["metadata.name", "spec.unschedulable"],
        Storage::Pods => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
        ],
        Storage::Namespaces => &["metadata.name", "status.phase"],
        Storage::Events => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.name",
            "involvedObject.namespace",
            "involvedObject.uid",
            "reason",
            "type",
        ],
        Storage::EniConfigs | Storage::CniNodes => &["metadata.name", "metadata.namespace"],
    }
}

/// Absent fields are empty; booleans are words.
fn field_of(object: &Value, path: &str) -> String {
    let value = path.split('.').fold(object, |value, part| &value[part]);
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null if path == "spec.unschedulable" || path == "spec.hostNetwork" => "false".to_owned(),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

/// At commas, but not at those within parentheses.
fn split(text: &str) -> impl Iterator<Item = String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_i32);
    for c in text.chars() {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        match parts.last_mut() {
            Some(part) if c != ',' || depth > 0 => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts.into_iter().filter(|part| !part.trim().is_empty())
}

fn equality(text: &str) -> Option<Requirement> {
    let (name, value, is) = text
        .split_once("!=")
        .map(|(name, value)| (name, value, false))
        .or_else(|| text.split_once("==").map(|(name, value)| (name, value, true)))
        .or_else(|| text.split_once('=').map(|(name, value)| (name, value, true)))?;
    let (name, values) = (name.trim().to_owned(), vec![value.trim().to_owned()]);
    Some(if is {
        Requirement::Is(name, values)
    } else {
        Requirement::IsNot(name, values)
    })
}

fn field_requirement(text: &str) -> Result<Requirement, BadSelector> {
    equality(text).ok_or_else(|| BadSelector(format!("invalid field selector: {text}")))
}

fn label_requirement(text: &str) -> Result<Requirement, BadSelector> {
    if let Some((head, list)) = text.split_once('(') {
        let list = list.trim().strip_suffix(')');
        let words: Vec<_> = head.split_whitespace().collect();
        let values = list.map(|list| list.split(',').map(|value| value.trim().to_owned()).collect());
        return match (words.as_slice(), values) {
            ([name, "in"], Some(values)) => Ok(Requirement::Is((*name).to_owned(), values)),
            ([name, "notin"], Some(values)) => Ok(Requirement::IsNot((*name).to_owned(), values)),
            _ => Err(BadSelector(format!("unable to parse requirement: {text}"))),
        };
    }
    if let Some(requirement) = equality(text) {
        return Ok(requirement);
    }
    let text = text.trim();
    match text.strip_prefix('!') {
        Some(name) => Ok(Requirement::IsAbsent(name.trim().to_owned())),
        None if text.contains(char::is_whitespace) => Err(BadSelector(format!("unable to parse requirement: {text}"))),
        None => Ok(Requirement::Exists(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select() {
        let pod = json!({
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web", "tier": ""}},
            "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"},
        });
        for (labels, fields, matches) in [
            ("", "", true),
            ("app=web", "spec.nodeName=node-1", true),
            ("app==web,tier", "metadata.name=web-1,status.phase!=Failed", true),
            ("app!=web", "", false),
            ("app in (db, web),!gone", "spec.hostNetwork=false", true),
            ("app notin (db,web)", "", false),
            ("other!=x", "", true),
            ("gone", "", false),
            ("", "spec.nodeName=node-2", false),
            ("", "spec.nodeName=", false),
            ("", "status.podIP=", true),
        ] {
            let selector = Selector::parse(Storage::Pods, labels, fields).unwrap();
            assert_eq!(selector.matches(&pod), matches, "{labels} {fields}");
        }
    }

    #[test]
    fn what_the_api_server_does_not_know_is_refused() {
        for (labels, fields) in [
            ("", "spec.nodename=x"),
            ("", "metadata.name"),
            ("a in b", ""),
            ("a in (b", ""),
        ] {
            assert!(
                Selector::parse(Storage::Pods, labels, fields).is_err(),
                "{labels} {fields}"
            );
        }
        assert!(Selector::parse(Storage::Nodes, "", "spec.nodeName=x").is_err());
    }
}
