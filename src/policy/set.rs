//! Policies ready to be asked, and one question to them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use cedar_policy::{
    Authorizer, Context, ContextCreationError, Decision, Entities, Entity,
    EntityAttrEvaluationError, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RequestValidationError, Response, RestrictedExpression, entities_errors::EntitiesError,
};
use tracing::warn;

use super::{Denied, Principal};
use crate::{
    auth::Identity,
    config::App,
    permit::{Host, Target},
};

/// Checked policies. Every decision is made by [`Set::decide`].
pub(super) struct Set {
    policies: PolicySet,
    authorizer: Authorizer,
    facts: HashMap<Arc<str>, Facts>,
    /// Ids of the groups that a policy names; a person's other groups cannot change a decision.
    groups: HashSet<Box<str>>,
    reads_source: bool,
    names: Names,
}

impl Set {
    /// `facts` has an entry for each policy; `groups` are the ids of groups that they name.
    pub(super) fn new(
        policies: PolicySet,
        facts: HashMap<Arc<str>, Facts>,
        groups: HashSet<Box<str>>,
    ) -> Self {
        Self {
            reads_source: facts.values().any(|facts| facts.reads_source),
            policies,
            authorizer: Authorizer::new(),
            facts,
            groups,
            names: Names::new(),
        }
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
        match self.question(subject, resource) {
            Ok((request, entities)) => {
                let response = self
                    .authorizer
                    .is_authorized(&request, &self.policies, &entities);
                self.verdict(&response, resource.lacks_address())
            }
            Err(error) => {
                warn!(%error, "a request could not be put to the policies");
                Verdict::Denied(Denied {
                    reason: error.to_string(),
                    policies: Vec::new(),
                })
            }
        }
    }

    /// What Cedar's answer means here.
    ///
    /// Cedar leaves out a policy whose evaluation fails. For a `permit` that is safe, for a
    /// `forbid` it is not: then the answer is no. While the address is unknown, the attribute is
    /// missing, and exactly the policies whose outcome hangs on it fail: they are undecided.
    fn verdict(&self, response: &Response, lacks_address: bool) -> Verdict {
        let mut undecided_permit = false;
        let mut broken_forbids = Vec::new();
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
                broken_forbids.push(self.id(id));
            }
        }
        if !broken_forbids.is_empty() {
            return Verdict::Denied(Denied {
                reason: format!("could not be evaluated: {}", broken_forbids.join(", ")),
                policies: broken_forbids,
            });
        }
        let reasons: Vec<Arc<str>> = response
            .diagnostics()
            .reason()
            .map(|id| self.id(id.as_ref()))
            .collect();
        match response.decision() {
            Decision::Allow => Verdict::Allowed(reasons.into()),
            Decision::Deny if !reasons.is_empty() => Verdict::Denied(Denied {
                reason: format!("forbidden by {}", reasons.join(", ")),
                policies: reasons,
            }),
            Decision::Deny if undecided_permit => Verdict::NeedsAddress,
            Decision::Deny => Verdict::Denied(Denied::by_default()),
        }
    }

    fn id(&self, id: &str) -> Arc<str> {
        self.facts
            .get_key_value(id)
            .map_or_else(|| Arc::from(id), |(id, _)| Arc::clone(id))
    }

    fn question(
        &self,
        subject: &Subject,
        resource: &Resource,
    ) -> Result<(Request, Entities), Unaskable> {
        let names = &self.names;
        let identity = &subject.identity;
        let person = entity(
            names.user(identity),
            [("name", text(&identity.user))],
            self.groups_of(identity),
        )?;
        let (action, thing) = match resource {
            Resource::App { name, host, pool } => {
                let attributes = [
                    ("name", text(name)),
                    ("host", text(host)),
                    ("pool", text(pool)),
                ];
                let thing = entity(uid(&names.app, name), attributes, HashSet::new())?;
                (&names.open, thing)
            }
            Resource::Target(target, address) => {
                let host = match &target.host {
                    Host::Address(address) => text(&address.to_string()),
                    Host::Name(name) => text(name),
                };
                let port = RestrictedExpression::new_long(i64::from(target.port));
                let known = address.map(|address| ("address", ip(address)));
                let attributes = [("host", host), ("port", port)].into_iter().chain(known);
                let id = uid(&names.target, &target.to_string());
                (&names.tunnel, entity(id, attributes, HashSet::new())?)
            }
        };
        let context = Context::from_pairs([
            ("source".to_owned(), ip(subject.source)),
            ("directory".to_owned(), text(&identity.directory)),
        ])
        .map_err(Box::new)?;
        // What is asked is built here and has the schema's types; a test holds it against it.
        let request = Request::new(person.uid(), action.clone(), thing.uid(), context, None)
            .map_err(Box::new)?;
        let entities = Entities::from_entities([person, thing], None).map_err(Box::new)?;
        Ok((request, entities))
    }

    fn groups_of(&self, identity: &Identity) -> HashSet<EntityUid> {
        let mut parents = HashSet::new();
        for group in &*identity.groups {
            let qualified = qualified(&identity.directory, group);
            if self.groups.contains(&*qualified) {
                parents.insert(uid(&self.names.group, &qualified));
            }
            // A group that is called `corp/sales` in one directory must not pass for the group
            // `sales` of the directory `corp`.
            if !group.contains('/') && self.groups.contains(&**group) {
                parents.insert(uid(&self.names.group, group));
            }
        }
        parents
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

/// Who asks, and from where.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) session: Arc<str>,
    pub(super) identity: Identity,
    pub(super) source: IpAddr,
}

impl Subject {
    pub(super) fn new(principal: Principal<'_>, source: IpAddr) -> Self {
        Self {
            session: Arc::clone(principal.session),
            identity: principal.identity.clone(),
            source: source.to_canonical(),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    /// An app.
    App {
        name: Arc<str>,
        host: Arc<str>,
        pool: Arc<str>,
    },
    /// A tunnel's target, and the address once it is known.
    Target(Target, Option<IpAddr>),
}

impl Resource {
    pub(super) fn app(app: &App) -> Self {
        Self::App {
            name: Arc::clone(&app.name),
            host: Arc::clone(&app.host),
            pool: Arc::clone(&app.pool.name),
        }
    }

    fn lacks_address(&self) -> bool {
        matches!(self, Self::Target(_, None))
    }
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

/// A request that could not be put into Cedar's terms.
#[derive(Debug, thiserror::Error)]
enum Unaskable {
    /// An attribute.
    #[error("an attribute could not be expressed")]
    Attribute(#[from] Box<EntityAttrEvaluationError>),
    /// The circumstances.
    #[error("the circumstances could not be expressed")]
    Context(#[from] Box<ContextCreationError>),
    /// The entities together.
    #[error("the entities could not be expressed")]
    Entities(#[from] Box<EntitiesError>),
    /// The question as a whole.
    #[error("the request could not be expressed")]
    Request(#[from] Box<RequestValidationError>),
}

/// Cedar's names for what the schema declares, parsed once.
struct Names {
    app: EntityTypeName,
    group: EntityTypeName,
    target: EntityTypeName,
    user: EntityTypeName,
    open: EntityUid,
    tunnel: EntityUid,
}

impl Names {
    #[expect(clippy::expect_used, reason = "each is a plain identifier")]
    fn new() -> Self {
        let kind = |name: &str| -> EntityTypeName { name.parse().expect("an identifier") };
        let action = kind("Action");
        Self {
            app: kind("App"),
            group: kind("Group"),
            target: kind("Target"),
            user: kind("User"),
            open: uid(&action, "open"),
            tunnel: uid(&action, "tunnel"),
        }
    }

    fn user(&self, identity: &Identity) -> EntityUid {
        uid(&self.user, &qualified(&identity.directory, &identity.user))
    }
}

/// `directory/name`. The first `/` ends the directory, so that nothing that a directory calls
/// its people or groups can be read as another directory's.
fn qualified(directory: &str, name: &str) -> String {
    let directory = directory.replace('%', "%25").replace('/', "%2F");
    format!("{directory}/{name}")
}

fn entity<'a>(
    uid: EntityUid,
    attributes: impl IntoIterator<Item = (&'a str, RestrictedExpression)>,
    parents: HashSet<EntityUid>,
) -> Result<Entity, Unaskable> {
    let attributes = attributes
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Ok(Entity::new(uid, attributes, parents).map_err(Box::new)?)
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn ip(address: IpAddr) -> RestrictedExpression {
    RestrictedExpression::new_ip(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::load;

    #[test]
    fn what_is_asked_fits_the_schema() {
        let schema = load::schema();
        let groups = HashSet::from(["sales".into(), "corp/sales".into()]);
        let set = Set::new(PolicySet::new(), HashMap::new(), groups);
        let subject = Subject {
            session: "S-1".into(),
            identity: Identity {
                user: "alice".into(),
                directory: "corp".into(),
                groups: Arc::from([Arc::from("sales"), Arc::from("other")]),
            },
            source: "2001:db8::1".parse().unwrap(),
        };
        let target = Target::parse("[fd00::1]:443").unwrap();
        let resources = [
            Resource::Target(target, Some("fd00::1".parse().unwrap())),
            Resource::App {
                name: "intranet".into(),
                host: "intranet.corp.test".into(),
                pool: "intranet".into(),
            },
        ];

        for resource in resources {
            let (request, entities) = set.question(&subject, &resource).unwrap();
            Entities::from_entities(entities.iter().cloned(), Some(&schema)).unwrap();
            Request::new(
                request.principal().unwrap().clone(),
                request.action().unwrap().clone(),
                request.resource().unwrap().clone(),
                request.context().unwrap().clone(),
                Some(&schema),
            )
            .unwrap();
        }
    }

    #[test]
    fn a_directory_cannot_name_its_people_like_those_of_another() {
        assert_eq!(qualified("corp", "alice"), "corp/alice");
        assert_eq!(qualified("corp", "x/alice"), "corp/x/alice");
        assert_ne!(qualified("corp/x", "alice"), qualified("corp", "x/alice"));
        assert_ne!(qualified("corp%2Fx", "alice"), qualified("corp/x", "alice"));
    }
}
