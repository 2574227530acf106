//! The resources of an experiment and what needs what, and its topology as a picture.
//!
//! Must not know how a resource is made, nor what is running.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef as _;

use crate::diagnostic::{Diagnostic, Span};
use crate::name::{Address, Kind, VlanAlias};
use crate::spec::model::{Experiment, VlanRef, VmBody};

mod flow;
mod mermaid;
mod parts;
mod pipes;
mod render;
mod topology;

pub use flow::Flow;
pub use mermaid::mermaid;
pub use parts::{Part, PartKind, Settings, Tie, TieKind};
pub use pipes::PipelineView;
pub use render::{RenderError, dot, svg};
pub use topology::{Endpoint, TapView, Topology, VlanView, VmView, usb_line, vlan_key};

/// How many cycles are reported; one is often the cause of the others.
const MAX_CYCLES: usize = 20;

/// Which way to go from a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To what it needs.
    Needs,
    /// To what needs it.
    NeededBy,
}

#[derive(Debug, Clone)]
enum Node {
    /// A resource that the experiment declares.
    Resource(Address),
    /// What the VMs of one entry need together. It stands between n VMs and m needs, so that there are n + m edges and
    /// not n times m.
    Needs,
}

/// What needs what: VMs and taps need their VLANs, VMs and raw commands need the VMs that they depend on.
#[derive(Debug, Clone)]
pub struct Graph {
    /// An edge goes from a resource to what it needs, and knows where that is written.
    graph: DiGraph<Node, Span>,
    nodes: HashMap<Address, NodeIndex>,
    /// By node.
    levels: Vec<usize>,
}

impl Graph {
    /// The graph of an experiment, or its cycles, each with its full path. References to what does not exist are
    /// passed over; `spec` reports them.
    pub fn new(experiment: &Experiment) -> Result<Self, Vec<Diagnostic>> {
        let mut graph = DiGraph::new();
        let mut nodes = HashMap::new();
        let mut add = |graph: &mut DiGraph<Node, Span>, address: Address| {
            let index = graph.add_node(Node::Resource(address.clone()));
            nodes.insert(address, index);
            index
        };
        let mut vlans: HashMap<&VlanAlias, NodeIndex> = HashMap::new();
        for alias in experiment.vlans.keys() {
            vlans.insert(alias, add(&mut graph, Address::vlan(alias)));
        }
        let mut bridges: HashMap<&str, NodeIndex> = HashMap::new();
        for (name, _) in experiment.of(Kind::Bridge) {
            bridges.insert(name, add(&mut graph, Address::new(Kind::Bridge, name)));
        }
        let vms: Vec<NodeIndex> = experiment.vms.keys().map(|name| add(&mut graph, Address::vm(name))).collect();
        let by_name: HashMap<_, _> = experiment.vms.keys().zip(vms.iter().copied()).collect();
        let mut bodies: HashMap<*const VmBody, NodeIndex> = HashMap::new();
        for (vm, &index) in experiment.vms.values().zip(&vms) {
            let needs = *bodies.entry(Arc::as_ptr(&vm.body)).or_insert_with(|| {
                // An entry of one VM needs no node between.
                let needs = if Arc::strong_count(&vm.body) == 1 { index } else { graph.add_node(Node::Needs) };
                for nic in &vm.body.networks {
                    if let VlanRef::Alias(alias) = &nic.vlan
                        && let Some(&vlan) = vlans.get(alias)
                    {
                        graph.update_edge(needs, vlan, nic.span);
                    }
                    if let Some(&bridge) = nic.bridge.as_ref().and_then(|bridge| bridges.get(bridge.as_str())) {
                        graph.update_edge(needs, bridge, nic.span);
                    }
                }
                for other in &vm.body.depends_on {
                    if let Some(&other_index) = by_name.get(&other.value) {
                        graph.add_edge(needs, other_index, other.span);
                    }
                }
                needs
            });
            if needs != index {
                graph.add_edge(index, needs, vm.span);
            }
        }
        for (name, tap) in &experiment.taps {
            let index = add(&mut graph, Address::tap(name));
            if let VlanRef::Alias(alias) = &tap.vlan.value
                && let Some(&vlan) = vlans.get(alias)
            {
                graph.add_edge(index, vlan, tap.vlan.span);
            }
            if let Some(bridge) = &tap.bridge
                && let Some(&of) = bridges.get(bridge.value.as_str())
            {
                graph.add_edge(index, of, bridge.span);
            }
        }
        let mut objects = Vec::new();
        for (kind, named) in experiment.objects.iter().filter(|(kind, _)| **kind != Kind::Bridge) {
            for (name, object) in named {
                objects.push((*kind, object, add(&mut graph, Address::new(*kind, name))));
            }
        }
        for (name, entry) in &experiment.commands {
            let index = add(&mut graph, Address::command(name));
            for other in &entry.depends_on {
                if let Some(&vm) = by_name.get(&other.value) {
                    graph.update_edge(index, vm, other.span);
                }
            }
        }
        for (kind, object, index) in objects {
            let mut needs = object.references(kind);
            if let (Kind::Dnsmasq, Some(address)) = (kind, object.one("address")) {
                let has =
                    |tap: &crate::spec::model::Tap| tap.ip.as_ref().is_some_and(|ip| ip.value.0.to_string() == address);
                let taps = experiment.taps.iter().filter(|(_, tap)| has(tap));
                needs.extend(taps.map(|(name, _)| (Address::tap(name), object.place("address"))));
            }
            for element in object.all("pipeline") {
                needs.extend(experiment.pipe(element).map(|pipe| (Address::new(Kind::Pipe, pipe), element.span)));
            }
            for (address, span) in needs {
                if let Some(&needed) = nodes.get(&address) {
                    graph.update_edge(index, needed, span);
                }
            }
        }
        let Ok(sorted) = petgraph::algo::toposort(&graph, None) else {
            return Err(cycles(&graph));
        };
        let levels = levels(&graph, &sorted);
        Ok(Self { graph, nodes, levels })
    }

    /// Every resource, after all that it needs; by level, then by address. The same experiment gives the same order.
    pub fn order(&self) -> Vec<Address> {
        let resource = |index: NodeIndex| match &self.graph[index] {
            Node::Resource(address) => Some((self.levels[index.index()], address)),
            Node::Needs => None,
        };
        let mut order: Vec<(usize, &Address)> = self.graph.node_indices().filter_map(resource).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, address)| address.clone()).collect()
    }

    /// How many steps of needs lie below a resource: 0 for one that needs nothing. None for an unknown one.
    pub fn level(&self, address: &Address) -> Option<usize> {
        self.nodes.get(address).map(|index| self.levels[index.index()])
    }

    /// What a resource needs directly, sorted, each with where it is written.
    pub fn needs(&self, address: &Address) -> Vec<(Address, Span)> {
        self.neighbours(address, Direction::Outgoing)
    }

    /// What needs a resource directly, sorted, each with where it is written.
    pub fn needed_by(&self, address: &Address) -> Vec<(Address, Span)> {
        self.neighbours(address, Direction::Incoming)
    }

    /// These resources and everything that can be reached from them; those that are not in the graph are passed over. The
    /// cost is linear in what is reached.
    pub fn closure<'a>(&self, from: impl IntoIterator<Item = &'a Address>, reach: Reach) -> HashSet<Address> {
        let mut queue: Vec<NodeIndex> = from.into_iter().filter_map(|a| self.nodes.get(a)).copied().collect();
        let mut seen: HashSet<NodeIndex> = queue.iter().copied().collect();
        let direction = match reach {
            Reach::Needs => Direction::Outgoing,
            Reach::NeededBy => Direction::Incoming,
        };
        let mut found = HashSet::new();
        while let Some(index) = queue.pop() {
            if let Node::Resource(address) = &self.graph[index] {
                found.insert(address.clone());
            }
            queue.extend(self.graph.neighbors_directed(index, direction).filter(|other| seen.insert(*other)));
        }
        found
    }

    fn neighbours(&self, address: &Address, direction: Direction) -> Vec<(Address, Span)> {
        let Some(&index) = self.nodes.get(address) else { return Vec::new() };
        let ends = |from: NodeIndex| {
            self.graph.edges_directed(from, direction).map(move |edge| {
                let other = if direction == Direction::Outgoing { edge.target() } else { edge.source() };
                (other, *edge.weight())
            })
        };
        let mut found = Vec::new();
        for (other, span) in ends(index) {
            match &self.graph[other] {
                Node::Resource(address) => found.push((address.clone(), span)),
                Node::Needs => {
                    for (far, far_span) in ends(other) {
                        if let Node::Resource(address) = &self.graph[far] {
                            let span = if direction == Direction::Outgoing { far_span } else { span };
                            found.push((address.clone(), span));
                        }
                    }
                }
            }
        }
        found.sort();
        found.dedup_by(|a, b| a.0 == b.0);
        found
    }
}

/// The level at which each node could stand; what stands between takes no level of its own. `sorted` has every node before
/// what it needs.
fn levels(graph: &DiGraph<Node, Span>, sorted: &[NodeIndex]) -> Vec<usize> {
    let mut at = vec![0usize; graph.node_count()];
    for &index in sorted.iter().rev() {
        let below = graph.neighbors(index).map(|other| match graph[other] {
            Node::Resource(_) => at[other.index()] + 1,
            Node::Needs => at[other.index()],
        });
        at[index.index()] = below.max().unwrap_or(0);
    }
    at
}

/// One diagnostic for each set of resources that need each other.
fn cycles(graph: &DiGraph<Node, Span>) -> Vec<Diagnostic> {
    // Kosaraju's algorithm and not Tarjan's, which recurses as deep as the longest chain.
    let mut sets: Vec<BTreeSet<NodeIndex>> = petgraph::algo::kosaraju_scc(graph)
        .into_iter()
        .filter(|set| set.len() > 1 || graph.contains_edge(set[0], set[0]))
        .map(|set| set.into_iter().collect())
        .collect();
    sets.sort();
    sets.iter().take(MAX_CYCLES).map(|set| cycle(graph, set)).collect()
}

/// The shortest cycle through the first resource of a strongly connected set, as a diagnostic.
fn cycle(graph: &DiGraph<Node, Span>, set: &BTreeSet<NodeIndex>) -> Diagnostic {
    let name = |index: NodeIndex| match &graph[index] {
        Node::Resource(address) => Some(address.clone()),
        Node::Needs => None,
    };
    let start = *set
        .iter()
        .filter(|i| name(**i).is_some())
        .min_by_key(|i| name(**i))
        .expect("every cycle goes through a resource: what stands between needs only resources");
    // Breadth first from the start until an edge comes back to it.
    let mut came: HashMap<NodeIndex, (NodeIndex, Span)> = HashMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    let closing = 'search: loop {
        let index = queue.pop_front().expect("the set is strongly connected");
        let mut edges: Vec<_> = graph.edges(index).filter(|e| set.contains(&e.target())).collect();
        edges.sort_by_key(|e| (name(e.target()), e.target()));
        for edge in edges {
            if edge.target() == start {
                break 'search (index, *edge.weight());
            }
            if let std::collections::hash_map::Entry::Vacant(vacant) = came.entry(edge.target()) {
                vacant.insert((index, *edge.weight()));
                queue.push_back(edge.target());
            }
        }
    };
    // Backwards: each step's target, and where it is written. A step into what stands between is no step of its own; the
    // step out of it holds the place where the name is written.
    let mut steps: Vec<(Address, Span)> = vec![(name(start).expect("chosen so"), closing.1)];
    let mut index = closing.0;
    while index != start {
        let (from, span) = came[&index];
        if let Some(address) = name(index) {
            steps.push((address, span));
        }
        index = from;
    }
    steps.reverse();
    let first = name(start).expect("chosen so");
    let path: Vec<String> =
        std::iter::once(first.to_string()).chain(steps.iter().map(|(address, _)| address.to_string())).collect();
    let message = match path.len() {
        0..=12 => format!("these need each other: {}", path.join(" → ")),
        n => format!(
            "these need each other: {} → ... {} more ... → {}",
            path[..6].join(" → "),
            n - 12,
            path[n - 6..].join(" → ")
        ),
    };
    let mut diagnostic =
        Diagnostic::error("dependency-cycle", steps[0].1, message).hint("remove one of these from `depends_on`");
    let mut from = &first;
    for (to, span) in &steps {
        diagnostic = diagnostic.label(*span, format!("{from} needs {to}"));
        from = to;
    }
    diagnostic
}

#[cfg(test)]
mod tests;
