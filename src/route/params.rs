//! Checks the parameters of a request against the rules of its route.

use crate::config::{ParamPlace, ParamRule};
use crate::http::Query;

/// A parameter that its rule does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {place} parameter `{name}` {why}")]
pub struct ParamError {
    place: &'static str,
    name: String,
    why: String,
    /// What is wrong with it.
    pub fault: ParamFault,
}

/// What is wrong with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamFault {
    /// The query does not have it, and the rule requires it.
    Missing,
    /// The query has it more than once. To choose one of the values would be a guess.
    Repeated,
    /// Its value is not of the type.
    Type,
}

/// Checks every rule. `params` are those of the path, from the router.
///
/// # Errors
/// The first parameter that its rule does not allow.
///
/// # Panics
/// The parameters are not those of the rules' route.
pub fn check_params(
    rules: &[ParamRule],
    params: &[&str],
    query: Query<'_>,
) -> Result<(), ParamError> {
    for rule in rules {
        let (place, fault) = match rule.place {
            ParamPlace::Path(index) => ("path", rule_broken(rule, params[index])),
            ParamPlace::Query => {
                let fault = match query.one(&rule.name) {
                    Err(_) => Some(ParamFault::Repeated),
                    Ok(None) => rule.required.then_some(ParamFault::Missing),
                    Ok(Some(value)) => rule_broken(rule, &value),
                };
                ("query", fault)
            }
        };
        let Some(fault) = fault else { continue };
        let why = match fault {
            ParamFault::Missing => "is missing".to_owned(),
            ParamFault::Repeated => "is there more than once".to_owned(),
            ParamFault::Type => format!("must be {}", rule.kind),
        };
        let name = rule.name.clone();
        return Err(ParamError {
            place,
            name,
            why,
            fault,
        });
    }
    Ok(())
}

fn rule_broken(rule: &ParamRule, value: &str) -> Option<ParamFault> {
    (!rule.kind.allows(value)).then_some(ParamFault::Type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ParamKind;

    fn rule(place: ParamPlace, name: &str, required: bool) -> ParamRule {
        ParamRule {
            place,
            name: name.into(),
            kind: ParamKind::Integer { min: 1, max: 100 },
            required,
        }
    }

    #[test]
    fn each_fault_names_the_parameter() {
        let rules = [
            rule(ParamPlace::Path(1), "id", false),
            rule(ParamPlace::Query, "limit", false),
            rule(ParamPlace::Query, "page", true),
        ];
        for (params, query, expected) in [
            (["x", "7"], "page=1", None),
            (["x", "7"], "page=1&limit=100&other=z", None),
            (["x", "7"], "page=%31", None),
            (
                ["x", "0"],
                "page=1",
                Some("the path parameter `id` must be an integer from 1 to 100"),
            ),
            (
                ["7", "x"],
                "page=1",
                Some("the path parameter `id` must be an integer from 1 to 100"),
            ),
            (
                ["x", "7"],
                "",
                Some("the query parameter `page` is missing"),
            ),
            (
                ["x", "7"],
                "page=",
                Some("the query parameter `page` must be an integer from 1 to 100"),
            ),
            (
                ["x", "7"],
                "page=1&page=1",
                Some("the query parameter `page` is there more than once"),
            ),
            (
                ["x", "7"],
                "limit=101&page=1",
                Some("the query parameter `limit` must be an integer from 1 to 100"),
            ),
        ] {
            let parsed = Query::parse(Some(query)).expect("a good query");
            let error = check_params(&rules, &params, parsed).err();
            assert_eq!(
                error.map(|it| it.to_string()).as_deref(),
                expected,
                "{query}"
            );
        }
    }
}
