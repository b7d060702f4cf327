//! What the daemon hears of its node from Kubernetes: cordons, notices of its end, where new ENIs go, pods to come.

use ipam_core::{Event, Life, NodeCondition, Placement, Scheduling};

use crate::fault::Fault;
use crate::queue::Happening;
use crate::world::World;

impl World {
    /// What a daemon is told before anything else.
    pub(crate) fn introduce_node(&mut self) {
        self.placement = self.placement_of_operator();
        if self.scenario.custom {
            let placement = self.placement.clone();
            self.deliver(Event::PlacementChanged(placement));
        }
        if self.condition != NodeCondition::default() {
            self.deliver(Event::NodeConditionChanged(self.condition));
        }
    }

    fn placement_of_operator(&self) -> Placement {
        let Some(subnet) = self.other_subnets.first().filter(|id| self.is_in_zone(id)) else {
            return Placement::Discovered;
        };
        if !self.scenario.custom {
            return Placement::Discovered;
        }
        Placement::Given {
            subnet: subnet.clone(),
            groups: self.groups.iter().cloned().collect(),
        }
    }

    /// Draws what may change.
    pub(crate) fn change_node(&mut self) {
        if self.strikes(Fault::Cordon) {
            self.condition = NodeCondition {
                scheduling: Scheduling::Cordoned,
                life: self.luck.pick(&[Life::Staying, Life::Leaving]),
            };
            self.coverage.hit(
                "condition",
                match self.condition.life {
                    Life::Staying => "cordoned",
                    Life::Leaving => "leaving",
                },
            );
            self.tell_condition();
            let back = self.luck.millis(5_000, 600_000);
            self.after(back, Happening::NodeOpen);
        }
        if self.scenario.custom && self.strikes(Fault::Placement) {
            self.placement = match self.luck.below(3) {
                0 => Placement::Missing,
                _ => self.placement_of_operator(),
            };
            self.tell_placement();
        }
    }

    /// The node may be used again.
    pub(crate) fn open_node(&mut self) {
        if self.condition != NodeCondition::default() {
            self.condition = NodeCondition::default();
            self.tell_condition();
        }
    }

    /// An operator has put right where ENIs go.
    pub(crate) fn restore_placement(&mut self) {
        if self.placement != self.placement_of_operator() {
            self.placement = self.placement_of_operator();
            self.tell_placement();
        }
    }

    fn tell_condition(&mut self) {
        if self.core.is_some() {
            self.tell_in_order(Event::NodeConditionChanged(self.condition));
        }
    }

    fn tell_placement(&mut self) {
        if self.core.is_some() {
            self.coverage.hit(
                "placement",
                match self.placement {
                    Placement::Discovered => "discovered",
                    Placement::Given { .. } => "given",
                    Placement::Missing => "missing",
                },
            );
            let placement = self.placement.clone();
            self.tell_in_order(Event::PlacementChanged(placement));
        }
    }

    /// The scheduler bound pods to this node: they will ask in a second or two.
    pub(crate) fn announce(&mut self, pods: u32) {
        if self.core.is_some() {
            self.announced = self.announced.max(pods);
            self.coverage.hit("view", "Demand");
            self.tell(Event::Demand { pods });
        }
    }
}
