//! Security groups: ENIs of ours follow those of the primary one, and only ENIs that differ are touched.

use std::collections::BTreeSet;

use vpc_types::{EniId, SecurityGroupId};

use crate::BootTime;
use crate::core::Core;
use crate::event::Placement;

impl Core {
    /// Groups for new ENIs.
    pub(crate) fn groups_for_new_eni(&self) -> BTreeSet<SecurityGroupId> {
        match &self.placement {
            Placement::Given { groups, .. } if !groups.is_empty() => groups.clone(),
            Placement::Given { .. } | Placement::Discovered | Placement::Missing => self.groups.clone(),
        }
    }

    pub(crate) fn plan_groups(&mut self, _now: BootTime) {}

    pub(crate) fn groups_set(&mut self, id: &EniId, groups: &BTreeSet<SecurityGroupId>) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            eni.groups.clone_from(groups);
        }
    }
}
