//! Policies by what their scope asks for, so that a decision looks only at those that can match.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use cedar_policy::{
    ActionConstraint, EntityUid, Policy, PolicySet, PolicySetError, PrincipalConstraint,
};

/// Policies for one action, by principal. Cedar judges each policy by itself, so asking some
/// sets and joining the answers is the same as asking one set, as long as none is left out
/// whose scope can match.
#[derive(Default)]
pub(super) struct Slices {
    /// Those whose scope names nobody.
    anybody: PolicySet,
    /// Those for one group or one person.
    named: HashMap<EntityUid, PolicySet>,
}

impl Slices {
    /// Adds a policy if its scope can match this action.
    ///
    /// # Errors
    ///
    /// When a policy of the same id is there already.
    pub(super) fn add(
        &mut self,
        policy: &Policy,
        action: &EntityUid,
    ) -> Result<(), Box<PolicySetError>> {
        let matches = match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(only) => only == *action,
            ActionConstraint::In(some) => some.contains(action),
        };
        if !matches {
            return Ok(());
        }
        let set = match policy.principal_constraint() {
            // There is one type of principal.
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => &mut self.anybody,
            PrincipalConstraint::Eq(who)
            | PrincipalConstraint::In(who)
            | PrincipalConstraint::IsIn(_, who) => self.named.entry(who).or_default(),
        };
        set.add(policy.clone()).map_err(Box::new)
    }

    /// The sets with every policy whose scope can match this person.
    pub(super) fn matching<'a>(
        &'a self,
        person: &'a EntityUid,
        groups: &'a HashSet<EntityUid>,
    ) -> impl Iterator<Item = &'a PolicySet> {
        let named = std::iter::once(person)
            .chain(groups)
            .filter_map(|who| self.named.get(who));
        std::iter::once(&self.anybody).chain(named)
    }
}

impl fmt::Debug for Slices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slices")
            .field("anybody", &self.anybody.num_of_policies())
            .field("named", &self.named.len())
            .finish()
    }
}
