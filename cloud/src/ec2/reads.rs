//! Describes. All are paged or named by a filter, which EC2 rates far more generously than bare ones.

use std::ops::ControlFlow;

use aws_sdk_ec2::types as sdk;
use vpc_types::{EniId, InstanceId, InstanceLimits, SubnetId, VpcId};

use super::client::Ec2Client;
use super::convert;
use super::convert::Fields;
use super::eni::{EniView, SubnetView};
use super::error::{Action, Ec2Error, ErrorCode};
use super::request::TagFilter;
use super::traits::ReadEc2;

/// EC2's maximum.
const PAGE_SIZE: i32 = 1_000;
/// An account's default limit is 5,000 ENIs in a region; four times that.
const PAGES_MAX: usize = 20;

/// One page: what it holds, and where the next one begins.
type Page<T> = (Vec<T>, Option<String>);

impl ReadEc2 for Ec2Client {
    async fn describe_instance_enis(&self, instance: &InstanceId) -> Result<Vec<EniView>, Ec2Error> {
        self.enis(vec![filter("attachment.instance-id", instance.as_str())])
            .await
    }

    async fn describe_eni(&self, eni: &EniId) -> Result<Option<EniView>, Ec2Error> {
        let action = Action::DescribeNetworkInterfaces;
        let request = self
            .reads
            .describe_network_interfaces()
            .network_interface_ids(eni.as_str());
        let found = self
            .call(
                action,
                |attempts| request.customize().interceptor(attempts).send(),
                |answer| {
                    answer
                        .network_interfaces()
                        .first()
                        .map(|eni| convert::eni(action, eni))
                        .transpose()
                },
            )
            .await;
        none_if(found, &ErrorCode::InvalidNetworkInterfaceIdNotFound)
    }

    async fn describe_available_enis(&self, tags: &[TagFilter]) -> Result<Vec<EniView>, Ec2Error> {
        let by_tag = tags.iter().map(|tag| match tag {
            TagFilter::Present(key) => filter("tag-key", key),
            TagFilter::Equals { key, value } => filter(&format!("tag:{key}"), value),
        });
        self.enis(by_tag.chain([filter("status", "available")]).collect()).await
    }

    async fn describe_subnets(&self, vpc: &VpcId, az: &str) -> Result<Vec<SubnetView>, Ec2Error> {
        let filters = vec![filter("vpc-id", vpc.as_str()), filter("availability-zone", az)];
        let mut pages = Pages::new(Action::DescribeSubnets);
        loop {
            let page = self.subnet_page(filters.clone(), pages.next.take()).await?;
            if pages.add(page)?.is_break() {
                return Ok(pages.items);
            }
        }
    }

    async fn describe_subnet(&self, subnet: &SubnetId) -> Result<Option<SubnetView>, Ec2Error> {
        let action = Action::DescribeSubnets;
        let request = self.reads.describe_subnets().subnet_ids(subnet.as_str());
        let found = self
            .call(
                action,
                |attempts| request.customize().interceptor(attempts).send(),
                |answer| {
                    answer
                        .subnets()
                        .first()
                        .map(|subnet| convert::subnet(action, subnet))
                        .transpose()
                },
            )
            .await;
        none_if(found, &ErrorCode::InvalidSubnetIdNotFound)
    }

    async fn describe_instance_type(&self, name: &str) -> Result<InstanceLimits, Ec2Error> {
        let action = Action::DescribeInstanceTypes;
        let request = self.reads.describe_instance_types().instance_types(name.into());
        self.call(
            action,
            |attempts| request.customize().interceptor(attempts).send(),
            |answer| {
                let given = Fields::of(action, Some(name)).need("instanceTypeSet", answer.instance_types().first())?;
                convert::limits(action, name, given)
            },
        )
        .await
    }
}

impl Ec2Client {
    async fn enis(&self, filters: Vec<sdk::Filter>) -> Result<Vec<EniView>, Ec2Error> {
        let mut pages = Pages::new(Action::DescribeNetworkInterfaces);
        loop {
            let page = self.eni_page(filters.clone(), pages.next.take()).await?;
            if pages.add(page)?.is_break() {
                return Ok(pages.items);
            }
        }
    }

    async fn eni_page(&self, filters: Vec<sdk::Filter>, token: Option<String>) -> Result<Page<EniView>, Ec2Error> {
        let action = Action::DescribeNetworkInterfaces;
        let request = self.reads.describe_network_interfaces().set_filters(Some(filters));
        let request = request.max_results(PAGE_SIZE).set_next_token(token);
        self.call(
            action,
            |attempts| request.customize().interceptor(attempts).send(),
            |answer| {
                let enis = answer.network_interfaces().iter().map(|eni| convert::eni(action, eni));
                Ok((enis.collect::<Result<_, _>>()?, answer.next_token().map(str::to_owned)))
            },
        )
        .await
    }

    async fn subnet_page(
        &self,
        filters: Vec<sdk::Filter>,
        token: Option<String>,
    ) -> Result<Page<SubnetView>, Ec2Error> {
        let action = Action::DescribeSubnets;
        let request = self.reads.describe_subnets().set_filters(Some(filters));
        let request = request.max_results(PAGE_SIZE).set_next_token(token);
        self.call(
            action,
            |attempts| request.customize().interceptor(attempts).send(),
            |answer| {
                let subnets = answer.subnets().iter().map(|subnet| convert::subnet(action, subnet));
                Ok((
                    subnets.collect::<Result<_, _>>()?,
                    answer.next_token().map(str::to_owned),
                ))
            },
        )
        .await
    }
}

/// Pages read so far.
struct Pages<T> {
    action: Action,
    read: usize,
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Pages<T> {
    fn new(action: Action) -> Self {
        Self {
            action,
            read: 0,
            items: Vec::new(),
            next: None,
        }
    }

    /// Takes a page; says whether another one is to be read.
    fn add(&mut self, (mut items, next): Page<T>) -> Result<ControlFlow<()>, Ec2Error> {
        self.items.append(&mut items);
        self.read += 1;
        self.next = next.filter(|next| !next.is_empty());
        match self.next {
            None => Ok(ControlFlow::Break(())),
            Some(_) if self.read < PAGES_MAX => Ok(ControlFlow::Continue(())),
            Some(_) => Err(Ec2Error::Endless {
                action: self.action,
                pages: PAGES_MAX,
            }),
        }
    }
}

fn none_if<T>(found: Result<Option<T>, Ec2Error>, absent: &ErrorCode) -> Result<Option<T>, Ec2Error> {
    match found {
        Err(error) if error.code() == Some(absent) => Ok(None),
        other => other,
    }
}

fn filter(name: &str, value: &str) -> sdk::Filter {
    sdk::Filter::builder().name(name).values(value).build()
}
