//! Policies ready to be asked, and what their answers mean.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use cedar_policy::{Authorizer, Decision, Policy, PolicySetError, Response};
use tracing::warn;

use super::{
    Denied,
    question::{Names, Question, Resource, Subject},
    slice::Slices,
};

/// Checked policies. Every decision is made by [`Set::decide`].
#[derive(Default)]
pub(super) struct Set {
    opens: Slices,
    tunnels: Slices,
    authorizer: Authorizer,
    facts: HashMap<Arc<str>, Facts>,
    /// Ids of the groups that a policy names; a person's other groups cannot change a decision.
    groups: HashSet<Box<str>>,
    reads_source: bool,
    names: Names,
}

impl Set {
    /// Adds a policy that has been checked; its id is `id`.
    ///
    /// # Errors
    ///
    /// When a policy of the same id is there already.
    pub(super) fn add(
        &mut self,
        id: Arc<str>,
        policy: &Policy,
        facts: Facts,
    ) -> Result<(), Box<PolicySetError>> {
        self.opens.add(policy, &self.names.open)?;
        self.tunnels.add(policy, &self.names.tunnel)?;
        self.reads_source |= facts.reads_source;
        self.facts.insert(id, facts);
        let named = policy.entity_literals().into_iter();
        self.groups.extend(
            named
                .filter(|entity| entity.type_name() == &self.names.group)
                .map(|entity| Box::from(entity.id().unescaped())),
        );
        Ok(())
    }

    /// Whether a decision can depend on where the device is.
    pub(super) fn reads_source(&self) -> bool {
        self.reads_source
    }

    /// How many policies there are.
    pub(super) fn count(&self) -> usize {
        self.facts.len()
    }

    /// Asks the policies.
    pub(super) fn decide(&self, subject: &Subject, resource: &Resource) -> Verdict {
        match self.names.question(subject, resource, &self.groups) {
            Ok(question) => self.verdict(&self.ask(&question), resource.lacks_address()),
            Err(error) => {
                warn!(%error, "a request could not be put to the policies");
                Verdict::Denied(Denied {
                    reason: error.to_string(),
                    policies: Vec::new(),
                })
            }
        }
    }

    /// What the policies that can match have to say.
    fn ask(&self, question: &Question) -> Vec<Response> {
        let slices = if question.request.action() == Some(&self.names.open) {
            &self.opens
        } else {
            &self.tunnels
        };
        slices
            .matching(&question.person, &question.groups)
            .map(|set| {
                self.authorizer
                    .is_authorized(&question.request, set, &question.entities)
            })
            .collect()
    }

    /// What Cedar's answers mean here.
    ///
    /// Cedar leaves out a policy whose evaluation fails. For a `permit` that is safe, for a
    /// `forbid` it is not: then the answer is no. While the address is unknown, the attribute is
    /// missing, and exactly the policies whose outcome hangs on it fail: they are undecided.
    fn verdict(&self, responses: &[Response], lacks_address: bool) -> Verdict {
        let mut undecided_permit = false;
        let (mut broken, mut forbids, mut permits) = (Vec::new(), Vec::new(), Vec::new());
        for response in responses {
            for error in response.diagnostics().errors() {
                let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
                let id: &str = error.policy_id().as_ref();
                let facts = self.facts.get(id);
                if lacks_address && facts.is_some_and(|facts| facts.reads_address) {
                    undecided_permit |= facts.is_some_and(|facts| !facts.forbids);
                    continue;
                }
                warn!(policy = id, error = %error.inner(), "a policy could not be evaluated");
                if facts.is_none_or(|facts| facts.forbids) {
                    broken.push(self.id(id));
                }
            }
            let deciding = match response.decision() {
                Decision::Allow => &mut permits,
                Decision::Deny => &mut forbids,
            };
            let ids = response.diagnostics().reason();
            deciding.extend(ids.map(|id| self.id(id.as_ref())));
        }
        // The order in which Cedar names them is not fixed; a log is easier to read when it is.
        for ids in [&mut broken, &mut forbids, &mut permits] {
            ids.sort_unstable();
        }
        if !forbids.is_empty() {
            let reason = format!("forbidden by {}", forbids.join(", "));
            let policies = forbids;
            Verdict::Denied(Denied { reason, policies })
        } else if !broken.is_empty() {
            let reason = format!("could not be evaluated: {}", broken.join(", "));
            let policies = broken;
            Verdict::Denied(Denied { reason, policies })
        } else if !permits.is_empty() {
            Verdict::Allowed(permits.into())
        } else if undecided_permit {
            Verdict::NeedsAddress
        } else {
            Verdict::Denied(Denied::by_default())
        }
    }

    fn id(&self, id: &str) -> Arc<str> {
        self.facts
            .get_key_value(id)
            .map_or_else(|| Arc::from(id), |(id, _)| Arc::clone(id))
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set")
            .field("policies", &self.facts.keys())
            .finish_non_exhaustive()
    }
}

/// What is known about a policy without asking it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// It is a `forbid`.
    pub(super) forbids: bool,
    /// It mentions the target's address.
    pub(super) reads_address: bool,
    /// It mentions where the device is.
    pub(super) reads_source: bool,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// Yes, by these policies.
    Allowed(Arc<[Arc<str>]>),
    /// No.
    Denied(Denied),
    /// Nothing forbids it, and a policy would allow it at some address.
    NeedsAddress,
}

#[cfg(test)]
mod tests {
    use cedar_policy::{PolicyId, PolicySet};
    use proptest::prelude::*;

    use super::*;
    use crate::{auth::Identity, permit::Target};

    proptest! {
        #[test]
        fn asking_those_that_can_match_is_asking_all(
            scopes in prop::collection::vec((any::<bool>(), 0..PRINCIPALS.len(), 0..ACTIONS.len(), 0..CONDITIONS.len()), 0..12),
            user in "[ab]",
            groups in prop::collection::vec("[st]", 0..2),
            app in any::<bool>(),
        ) {
            let mut set = Set::default();
            let mut all = PolicySet::new();
            for (number, (forbids, principal, action, condition)) in scopes.into_iter().enumerate() {
                let effect = if forbids { "forbid" } else { "permit" };
                let (principal, action) = (PRINCIPALS[principal], ACTIONS[action]);
                let condition = CONDITIONS[condition];
                let text = format!("{effect} ({principal}, {action}, resource) {condition};");
                let id: Arc<str> = format!("p{number}").into();
                let policy = Policy::parse(Some(PolicyId::new(&id)), text).unwrap();
                let (facts, _) = crate::policy::facts::read(&policy);
                all.add(policy.clone()).unwrap();
                set.add(id, &policy, facts).unwrap();
            }
            let subject = Subject {
                session: "S-1".into(),
                identity: Identity {
                    user: user.into(),
                    directory: "corp".into(),
                    groups: groups.iter().map(|group| Arc::from(group.as_str())).collect(),
                },
                source: "192.0.2.1".parse().unwrap(),
            };
            let resource = if app {
                Resource::App { name: "crm".into(), host: "h".into(), pool: "p".into() }
            } else {
                let address = "10.0.0.1".parse().unwrap();
                Resource::Target(Target::parse("h:443").unwrap(), Some(address))
            };

            let question = set.names.question(&subject, &resource, &set.groups).unwrap();
            let whole = Authorizer::new().is_authorized(&question.request, &all, &question.entities);

            let allowed = matches!(set.decide(&subject, &resource), Verdict::Allowed(_));
            prop_assert_eq!(allowed, whole.decision() == Decision::Allow);
        }
    }

    const PRINCIPALS: [&str; 7] = [
        "principal",
        "principal is User",
        "principal == User::\"corp/a\"",
        "principal in User::\"corp/b\"",
        "principal in Group::\"s\"",
        "principal in Group::\"corp/t\"",
        "principal is User in Group::\"t\"",
    ];

    const ACTIONS: [&str; 4] = [
        "action",
        "action == Action::\"tunnel\"",
        "action == Action::\"open\"",
        "action in [Action::\"open\", Action::\"tunnel\"]",
    ];

    const CONDITIONS: [&str; 4] = [
        "",
        "when { principal in Group::\"corp/s\" }",
        "unless { principal in [Group::\"s\", Group::\"t\"] }",
        "when { resource.host == \"other\" }",
    ];
}
