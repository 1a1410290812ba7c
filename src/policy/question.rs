//! A request in Cedar's terms: who, what, under which circumstances.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use cedar_policy::{
    Context, ContextCreationError, Entities, Entity, EntityAttrEvaluationError, EntityId,
    EntityTypeName, EntityUid, Request, RequestValidationError, RestrictedExpression,
    entities_errors::EntitiesError,
};

use super::Principal;
use crate::{
    auth::Identity,
    config::App,
    permit::{Host, Target},
};

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

    pub(super) fn lacks_address(&self) -> bool {
        matches!(self, Self::Target(_, None))
    }
}

/// A request in Cedar's terms.
pub(super) struct Question {
    pub(super) request: Request,
    pub(super) entities: Entities,
    pub(super) person: EntityUid,
    pub(super) groups: HashSet<EntityUid>,
}

/// A request that could not be put into Cedar's terms.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unaskable {
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
pub(super) struct Names {
    app: EntityTypeName,
    pub(super) group: EntityTypeName,
    target: EntityTypeName,
    user: EntityTypeName,
    pub(super) open: EntityUid,
    pub(super) tunnel: EntityUid,
}

impl Default for Names {
    #[expect(clippy::expect_used, reason = "each is a plain identifier")]
    fn default() -> Self {
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
}

impl Names {
    /// Puts a request. Of the person's groups only `known` ones are told.
    pub(super) fn question(
        &self,
        subject: &Subject,
        resource: &Resource,
        known: &HashSet<Box<str>>,
    ) -> Result<Question, Unaskable> {
        let identity = &subject.identity;
        let groups = self.groups_of(identity, known);
        let name = ("name", text(&identity.user));
        let person = entity(self.user(identity), [name], groups.clone())?;
        let (action, thing) = match resource {
            Resource::App { name, host, pool } => {
                let attributes = [
                    ("name", text(name)),
                    ("host", text(host)),
                    ("pool", text(pool)),
                ];
                let thing = entity(uid(&self.app, name), attributes, HashSet::new())?;
                (&self.open, thing)
            }
            Resource::Target(target, address) => {
                let host = match &target.host {
                    Host::Address(address) => text(&address.to_string()),
                    Host::Name(name) => text(name),
                };
                let port = RestrictedExpression::new_long(i64::from(target.port));
                let known = address.map(|address| ("address", ip(address)));
                let attributes = [("host", host), ("port", port)].into_iter().chain(known);
                let id = uid(&self.target, &target.to_string());
                (&self.tunnel, entity(id, attributes, HashSet::new())?)
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
        let uid = person.uid();
        let entities = Entities::from_entities([person, thing], None).map_err(Box::new)?;
        Ok(Question {
            request,
            entities,
            person: uid,
            groups,
        })
    }

    fn groups_of(&self, identity: &Identity, known: &HashSet<Box<str>>) -> HashSet<EntityUid> {
        let mut parents = HashSet::new();
        for group in &*identity.groups {
            let qualified = qualified(&identity.directory, group);
            if known.contains(&*qualified) {
                parents.insert(uid(&self.group, &qualified));
            }
            // A group that is called `corp/sales` in one directory must not pass for the group
            // `sales` of the directory `corp`.
            if !group.contains('/') && known.contains(&**group) {
                parents.insert(uid(&self.group, group));
            }
        }
        parents
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
        let known = HashSet::from(["sales".into(), "corp/sales".into()]);
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
            let question = Names::default()
                .question(&subject, &resource, &known)
                .unwrap();
            let Question {
                request, entities, ..
            } = question;
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
