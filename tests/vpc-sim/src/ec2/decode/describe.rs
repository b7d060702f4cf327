//! Describes: ids, filters, paging.

use super::super::params::Params;
use super::{Decode, WireId, take_ids};
use crate::model::Ec2Error;
use crate::model::request::{
    DescribeInstanceTypes, DescribeInstances, DescribeNetworkInterfaces, DescribeSecurityGroups, DescribeSubnets,
    DescribeVpcs, Filter, Query,
};

fn query(params: &mut Params) -> Result<Query, Ec2Error> {
    let mut filters = Vec::new();
    for number in params.numbers("Filter") {
        let name = params.require(&format!("Filter.{number}.Name"))?;
        let values = params.take_list(&format!("Filter.{number}.Value"));
        filters.push(Filter { name, values });
    }
    let max_results = params.take_parsed("MaxResults")?;
    // A client that pages by hand may send an empty token for the first page.
    let next_token = params.take("NextToken").filter(|token| !token.is_empty());
    Ok(Query {
        filters,
        max_results,
        next_token,
    })
}

fn ids_and_query<T: WireId>(params: &mut Params, name: &str) -> Result<(Vec<T>, Query), Ec2Error> {
    Ok((take_ids(params, name)?, query(params)?))
}

macro_rules! decode {
    ($request:ident, $ids:literal, $ignored:expr) => {
        impl Decode for $request {
            fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
                params.ignore(&$ignored);
                let (ids, query) = ids_and_query(params, $ids)?;
                Ok(Self { ids, query })
            }
        }
    };
}

decode!(
    DescribeNetworkInterfaces,
    "NetworkInterfaceId",
    ["IncludeManagedResources"]
);
decode!(DescribeInstances, "InstanceId", ["IncludeManagedResources"]);
decode!(DescribeInstanceTypes, "InstanceType", [""; 0]);
decode!(DescribeSubnets, "SubnetId", [""; 0]);
decode!(DescribeVpcs, "VpcId", [""; 0]);
decode!(DescribeSecurityGroups, "GroupId", [""; 0]);
