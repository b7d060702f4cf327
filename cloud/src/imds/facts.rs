//! What IMDS says about the node and its ENIs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use vpc_types::{
    Allocation, DeviceNumber, EniId, InstanceId, MacAddress, NetworkCard, Prefix28, SecurityGroupId, SubnetId, VpcId,
};

use super::client::{ImdsClient, ImdsError, SET_DEADLINE, within};

/// Rounds of questions, with waits of 0.1, 0.2, 0.4 and 0.8 s between them.
const FACTS_ROUNDS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Who the node is. All but the security groups and the VPC's ranges never change while the instance lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFacts {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its type, for example `m5.large`.
    pub instance_type: String,
    /// Its zone.
    pub az: String,
    /// Its region.
    pub region: String,
    /// MAC of the primary ENI.
    pub mac: MacAddress,
    /// Primary address of the primary ENI.
    pub local_ipv4: Ipv4Addr,
    /// The primary ENI.
    pub interface_id: EniId,
    /// Subnet of the primary ENI.
    pub subnet_id: SubnetId,
    /// The VPC.
    pub vpc_id: VpcId,
    /// IPv4 range of that subnet.
    pub subnet_cidr: Ipv4Net,
    /// IPv4 ranges of the VPC; it may gain some later.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Security groups of the primary ENI.
    pub security_groups: BTreeSet<SecurityGroupId>,
}

/// One ENI as IMDS shows it. A hint: IMDS lags behind EC2, and may keep what is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsEni {
    /// The ENI.
    pub id: EniId,
    /// Its MAC.
    pub mac: MacAddress,
    /// Its slot.
    pub device: DeviceNumber,
    /// Its card; IMDS omits it where there is only one.
    pub card: NetworkCard,
    /// Its subnet.
    pub subnet: SubnetId,
    /// IPv4 range of its subnet; none on an IPv6-only ENI.
    pub subnet_cidr: Option<Ipv4Net>,
    /// Private addresses, the primary first, without those inside prefixes.
    pub addresses: Vec<Ipv4Addr>,
    /// Delegated prefixes.
    pub prefixes: Vec<Prefix28>,
    /// Security groups.
    pub groups: BTreeSet<SecurityGroupId>,
}

/// What changes on ENIs, as IMDS shows it: the cheap look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsGlance {
    /// Security groups of the ENI that was named.
    pub groups: BTreeSet<SecurityGroupId>,
    /// ENIs with an IPv4 address, by MAC.
    pub enis: BTreeMap<MacAddress, Vec<Allocation>>,
}

impl ImdsClient {
    /// Everything about the node that start-up needs. While IMDS does not answer, asks again for some seconds.
    pub async fn facts(&self) -> Result<InstanceFacts, ImdsError> {
        within(SET_DEADLINE, self.insist_on_facts()).await
    }

    async fn insist_on_facts(&self) -> Result<InstanceFacts, ImdsError> {
        let mut wait = FIRST_WAIT;
        for _ in 1..FACTS_ROUNDS {
            match self.read_facts().await {
                Err(error) if error.is_transient() => tracing::debug!(%error, ?wait, "asking imds again"),
                done => return done,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.read_facts().await
    }

    async fn read_facts(&self) -> Result<InstanceFacts, ImdsError> {
        let mac: MacAddress = self.get_as("mac").await?;
        let of_mac = |leaf| leaf_path(mac, leaf);
        Ok(InstanceFacts {
            instance_id: self.get_as("instance-id").await?,
            instance_type: self.get("instance-type").await?,
            az: self.get("placement/availability-zone").await?,
            region: self.region().await?,
            mac,
            local_ipv4: self.get_as("local-ipv4").await?,
            interface_id: self.get_as(&of_mac("interface-id")).await?,
            subnet_id: self.get_as(&of_mac("subnet-id")).await?,
            vpc_id: self.get_as(&of_mac("vpc-id")).await?,
            subnet_cidr: self.get_as(&of_mac("subnet-ipv4-cidr-block")).await?,
            vpc_cidrs: self.get_list(&of_mac("vpc-ipv4-cidr-blocks")).await?,
            security_groups: self
                .get_list(&of_mac("security-group-ids"))
                .await?
                .into_iter()
                .collect(),
        })
    }

    /// IPv4 ranges of the VPC, as the ENI with this MAC sees them.
    pub async fn vpc_cidrs(&self, mac: MacAddress) -> Result<Vec<Ipv4Net>, ImdsError> {
        self.get_list(&leaf_path(mac, "vpc-ipv4-cidr-blocks")).await
    }

    /// Security groups of the ENI with this MAC.
    pub async fn security_groups(&self, mac: MacAddress) -> Result<BTreeSet<SecurityGroupId>, ImdsError> {
        Ok(self
            .get_list(&leaf_path(mac, "security-group-ids"))
            .await?
            .into_iter()
            .collect())
    }

    /// The ENIs that IMDS shows completely, by MAC. One that is coming or going (listed, but without its id, slot or
    /// subnet) is left out.
    pub async fn enis(&self) -> Result<Vec<ImdsEni>, ImdsError> {
        within(SET_DEADLINE, self.read_enis()).await
    }

    /// Secondary addresses and prefixes of all ENIs, and the security groups of one: two questions, and two per ENI.
    pub async fn glance(&self, primary: MacAddress) -> Result<ImdsGlance, ImdsError> {
        within(SET_DEADLINE, async {
            let mut enis = BTreeMap::new();
            for mac in self.macs().await? {
                let addresses: Vec<Ipv4Addr> = self
                    .find_list(&leaf_path(mac, "local-ipv4s"))
                    .await?
                    .unwrap_or_default();
                // Without its own address it comes, or goes, or is for EFA only.
                if addresses.is_empty() {
                    continue;
                }
                let singles = addresses.into_iter().skip(1).map(Allocation::Ip);
                let prefixes = self.prefixes(mac).await?.into_iter().map(Allocation::Prefix);
                enis.insert(mac, singles.chain(prefixes).collect());
            }
            let groups = self.security_groups(primary).await?;
            Ok(ImdsGlance { groups, enis })
        })
        .await
    }

    /// Whether EC2 has announced that the instance will stop or end: by a spot notice, or by its Auto Scaling group.
    pub async fn is_leaving(&self) -> Result<bool, ImdsError> {
        within(SET_DEADLINE, async {
            let spot = self.find("spot/instance-action").await?;
            let group = self.find("autoscaling/target-lifecycle-state").await?;
            Ok(spot.is_some() || group.is_some_and(|state| state == "Terminated"))
        })
        .await
    }

    /// When the instance was started last, in RFC 3339: `pendingTime` of its identity document.
    pub async fn launched_at(&self) -> Result<Option<String>, ImdsError> {
        let document = self.find_below("dynamic", "instance-identity/document").await?;
        let after_key = document.as_deref().and_then(|text| text.split_once("\"pendingTime\""));
        let value = after_key.and_then(|(_, rest)| rest.split('"').nth(1));
        Ok(value.map(str::to_owned))
    }

    async fn macs(&self) -> Result<Vec<MacAddress>, ImdsError> {
        let path = "network/interfaces/macs/";
        let entries = self.get_list::<String>(path).await?;
        let mac = |entry: &String| {
            entry.trim_end_matches('/').parse().map_err(|_| ImdsError::Malformed {
                path: path.to_owned(),
                text: entry.clone(),
            })
        };
        entries.iter().map(mac).collect()
    }

    async fn prefixes(&self, mac: MacAddress) -> Result<Vec<Prefix28>, ImdsError> {
        let path = leaf_path(mac, "ipv4-prefix");
        let prefix = |net: Ipv4Net| {
            Prefix28::new(net).map_err(|_| ImdsError::Malformed {
                path: path.clone(),
                text: net.to_string(),
            })
        };
        let nets = self.find_list::<Ipv4Net>(&path).await?.unwrap_or_default();
        nets.into_iter().map(prefix).collect()
    }

    async fn read_enis(&self) -> Result<Vec<ImdsEni>, ImdsError> {
        let mut enis = Vec::new();
        for mac in self.macs().await? {
            enis.extend(self.find_eni(mac).await?);
        }
        enis.sort_by_key(|eni| eni.mac);
        Ok(enis)
    }

    async fn find_eni(&self, mac: MacAddress) -> Result<Option<ImdsEni>, ImdsError> {
        let of_mac = |leaf| leaf_path(mac, leaf);
        let Some(id) = self.find_as(&of_mac("interface-id")).await? else {
            return Ok(None);
        };
        let Some(device) = self.find_as(&of_mac("device-number")).await? else {
            return Ok(None);
        };
        let Some(subnet) = self.find_as(&of_mac("subnet-id")).await? else {
            return Ok(None);
        };
        Ok(Some(ImdsEni {
            id,
            mac,
            device: DeviceNumber(device),
            card: self
                .find_as(&of_mac("network-card"))
                .await?
                .map_or(NetworkCard::DEFAULT, NetworkCard),
            subnet,
            subnet_cidr: self.find_as(&of_mac("subnet-ipv4-cidr-block")).await?,
            addresses: self.find_list(&of_mac("local-ipv4s")).await?.unwrap_or_default(),
            prefixes: self.prefixes(mac).await?,
            groups: self
                .find_list(&of_mac("security-group-ids"))
                .await?
                .unwrap_or_default()
                .into_iter()
                .collect(),
        }))
    }
}

fn leaf_path(mac: MacAddress, leaf: &str) -> String {
    format!("network/interfaces/macs/{mac}/{leaf}")
}
