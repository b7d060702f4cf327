//! The describes. They show what has become visible, which may be older than the truth.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use vpc_types::limits::{InstanceShape, PrefixDelegation, instance_types};
use vpc_types::{InstanceId, InstanceLimits};

use super::super::filter::{Named, check_paging, select};
use super::super::history::Viewer;
use super::super::record::{Eni, Instance, SecurityGroup, Vpc};
use super::super::request::{
    DescribeInstanceTypes, DescribeInstances, DescribeNetworkInterfaces, DescribeSecurityGroups, DescribeSubnets,
    DescribeVpcs, Query,
};
use super::super::subnet::Subnet;
use super::super::throttle::Breadth;
use super::super::{Action, Ec2Error, ErrorCode, World};
use super::Operation;

/// Most items per page, but for instance types.
const PAGE_MAX: u32 = 1_000;
/// Most instance types per page.
const TYPES_PAGE_MAX: u32 = 100;

/// All types; a look-up of each by name would make every page of them slow.
static CATALOGUE: LazyLock<Vec<InstanceType>> =
    LazyLock::new(|| instance_types().filter_map(InstanceType::of).collect());

/// One page of a describe.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// In the order of their ids.
    pub items: Vec<T>,
    /// Present when there is more.
    pub next_token: Option<String>,
}

/// An instance with the ENIs a describe shows on it, primary first.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// The instance.
    pub instance: Instance,
    /// By card and device.
    pub enis: Vec<Arc<Eni>>,
}

/// An instance type.
#[derive(Debug, Clone)]
pub struct InstanceType {
    /// For instance `m5.large`.
    pub name: String,
    /// What it allows.
    pub limits: InstanceLimits,
    /// What else it has.
    pub shape: InstanceShape,
}

impl InstanceType {
    fn of(name: &str) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            limits: InstanceLimits::of(name)?,
            shape: InstanceShape::of(name)?,
        })
    }

    /// Whether there is no hypervisor.
    pub fn is_bare_metal(&self) -> bool {
        self.name.contains("metal")
    }

    /// `nitro` or `xen`; bare metal has none.
    pub fn hypervisor(&self) -> Option<&'static str> {
        let is_nitro = self.limits.prefix_delegation == PrefixDelegation::Supported;
        (!self.is_bare_metal()).then_some(if is_nitro { "nitro" } else { "xen" })
    }
}

fn breadth(query: &Query) -> Breadth {
    if query.filters.is_empty() && query.max_results.is_none() && query.next_token.is_none() {
        Breadth::Everything
    } else {
        Breadth::Narrowed
    }
}

/// Narrows to the named ids; the first one missing is an error.
fn named<T, I: Named>(items: Vec<T>, ids: &[I], is: impl Fn(&T, &I) -> bool) -> Result<Vec<T>, Ec2Error> {
    if let Some(missing) = ids.iter().find(|id| !items.iter().any(|item| is(item, id))) {
        return Err(missing.not_found());
    }
    Ok(items
        .into_iter()
        .filter(|item| ids.is_empty() || ids.iter().any(|id| is(item, id)))
        .collect())
}

impl Operation for DescribeNetworkInterfaces {
    type Output = Page<Arc<Eni>>;
    const ACTION: Action = Action::DescribeNetworkInterfaces;

    fn breadth(&self) -> Breadth {
        breadth(&self.query)
    }

    fn execute(&self, world: &mut World, now: Duration) -> Result<Self::Output, Ec2Error> {
        check_paging(&self.query, self.ids.len(), PAGE_MAX)?;
        let seen = if self.ids.is_empty() {
            candidates(world, now, &self.query)
        } else {
            world.view_enis(Viewer::Api, now).cloned().collect()
        };
        select(
            named(seen, &self.ids, |eni, id| eni.id == *id)?.into_iter(),
            &self.query,
        )
    }
}

/// All ENIs, or those of the instances that a filter names: nodes ask for their own, of thousands. In order of ids.
fn candidates(world: &World, now: Duration, query: &Query) -> Vec<Arc<Eni>> {
    let instances = query
        .filters
        .iter()
        .find(|filter| filter.name == "attachment.instance-id");
    let ids = instances.and_then(|filter| {
        filter
            .values
            .iter()
            .map(|value| InstanceId::parse(value).ok())
            .collect()
    });
    // A pattern is no id, and falls back to all.
    let ids: Option<BTreeSet<InstanceId>> = ids;
    let Some(ids) = ids else {
        return world.view_enis(Viewer::Api, now).cloned().collect();
    };
    let mut enis: Vec<_> = ids
        .iter()
        .flat_map(|id| world.view_enis_of(Viewer::Api, now, id))
        .map(Arc::clone)
        .collect();
    enis.sort_by(|a, b| a.id.cmp(&b.id));
    enis
}

impl Operation for DescribeInstances {
    type Output = Page<InstanceView>;
    const ACTION: Action = Action::DescribeInstances;

    fn breadth(&self) -> Breadth {
        breadth(&self.query)
    }

    fn execute(&self, world: &mut World, now: Duration) -> Result<Self::Output, Ec2Error> {
        check_paging(&self.query, self.ids.len(), PAGE_MAX)?;
        let wanted = named(world.instances.values().cloned().collect(), &self.ids, |one, id| {
            one.id == *id
        })?;
        let views = wanted.into_iter().map(|instance| {
            let mut enis: Vec<_> = world.view_enis_of(Viewer::Api, now, &instance.id).cloned().collect();
            enis.sort_by_key(|eni| eni.attachment.as_ref().map(|tie| (tie.card, tie.device)));
            InstanceView { instance, enis }
        });
        select(views, &self.query)
    }
}

impl Operation for DescribeInstanceTypes {
    type Output = Page<InstanceType>;
    const ACTION: Action = Action::DescribeInstanceTypes;

    fn execute(&self, _: &mut World, _: Duration) -> Result<Self::Output, Ec2Error> {
        check_paging(&self.query, self.ids.len(), TYPES_PAGE_MAX)?;
        let known = |name: &String| {
            InstanceType::of(name).ok_or_else(|| {
                let text = format!("The following supplied instance types do not exist: [{name}]");
                Ec2Error::new(ErrorCode::InvalidInstanceType, text)
            })
        };
        let mut kinds = if self.ids.is_empty() {
            CATALOGUE.clone()
        } else {
            self.ids.iter().map(known).collect::<Result<Vec<_>, _>>()?
        };
        kinds.sort_by(|a, b| a.name.cmp(&b.name));
        let query = Query {
            // Without a size, EC2 answers the catalogue in pages of the largest one.
            max_results: self.query.max_results.or(Some(TYPES_PAGE_MAX)),
            ..self.query.clone()
        };
        select(kinds.into_iter(), &query)
    }
}

impl Operation for DescribeSubnets {
    type Output = Page<Subnet>;
    const ACTION: Action = Action::DescribeSubnets;

    fn execute(&self, world: &mut World, _: Duration) -> Result<Self::Output, Ec2Error> {
        check_paging(&self.query, self.ids.len(), PAGE_MAX)?;
        let all = world.subnets.values().cloned().collect();
        select(
            named(all, &self.ids, |subnet, id| subnet.id == *id)?.into_iter(),
            &self.query,
        )
    }
}

impl Operation for DescribeVpcs {
    type Output = Page<Vpc>;
    const ACTION: Action = Action::DescribeVpcs;

    fn execute(&self, world: &mut World, _: Duration) -> Result<Self::Output, Ec2Error> {
        check_paging(&self.query, self.ids.len(), PAGE_MAX)?;
        let all = world.vpcs.values().cloned().collect();
        select(named(all, &self.ids, |vpc, id| vpc.id == *id)?.into_iter(), &self.query)
    }
}

impl Operation for DescribeSecurityGroups {
    type Output = Page<SecurityGroup>;
    const ACTION: Action = Action::DescribeSecurityGroups;

    fn breadth(&self) -> Breadth {
        breadth(&self.query)
    }

    fn execute(&self, world: &mut World, _: Duration) -> Result<Self::Output, Ec2Error> {
        check_paging(&self.query, self.ids.len(), PAGE_MAX)?;
        let all = world.groups.values().cloned().collect();
        select(
            named(all, &self.ids, |group, id| group.id == *id)?.into_iter(),
            &self.query,
        )
    }
}
