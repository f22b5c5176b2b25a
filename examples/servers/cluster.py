"""How a cluster of masters, each with a replica, is started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from .ports import free_node_port
from .programs import VALKEY_9, Program
from .sentinel import speaking, wait_until
from .valkey import Tls, Valkey

SLOTS: Final = 16_384


class ValkeyCluster:
    """Three masters that own a third of the slots each, and a replica of each that takes its place when it is gone.

    Args:
        nodes: the masters, and then the replicas in the same order.
        tls: the certificate of all of them, where they speak TLS only.
    """

    MASTERS: Final = 3

    def __init__(self, nodes: Sequence[Valkey], tls: Tls | None) -> None:
        self.masters = nodes[: self.MASTERS]
        self.replicas = nodes[self.MASTERS :]
        self._tls = tls

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        *,
        program: Program = VALKEY_9,
        tls: Tls | None = None,
        node_timeout_ms: int = 1000,
        args: Sequence[str] = (),
    ) -> Iterator[Self]:
        """Serve an empty store of 16384 slots.

        Args:
            program: which server all six are.
            tls: makes all six speak TLS and nothing else.
            node_timeout_ms: milliseconds of silence after which the others take a node for down.
            args: more arguments of each.

        Raises:
            ServerFailed: they cannot run here.
        """
        options = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(node_timeout_ms),
            # Slots without a node are no reason to refuse the others.
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
        } | ({"tls-cluster": "yes"} if tls else {})
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with contextlib.ExitStack() as stack:
            nodes = [
                stack.enter_context(
                    Valkey.start(program=program, tls=tls, args=[*words, *args], choose_port=free_node_port)
                )
                for _ in range(2 * cls.MASTERS)
            ]
            cluster = cls(nodes, tls)
            cluster._join(f"{program.name} as cluster")
            yield cluster

    def __repr__(self) -> str:
        return f"<ValkeyCluster: {[*self.masters, *self.replicas]!r}>"

    @property
    def url(self) -> str:
        """Its address for `REDIS_URL`."""
        scheme, query = ("redis", "") if self._tls is None else ("rediss", f"?ssl_ca_certs={self._tls.authority}")
        return f"{scheme}+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.masters)}{query}"

    def of(self, node: Valkey) -> Any:
        """Return a client of one node."""
        return speaking(node.port, self._tls)

    def slots_of(self, node: Valkey) -> range:
        """Return the slots that a master, or a replica's master, had at first."""
        place = [*self.masters, *self.replicas].index(node) % self.MASTERS
        return range(SLOTS * place // self.MASTERS, SLOTS * (place + 1) // self.MASTERS)

    def owner(self, slot: int) -> Valkey:
        """Return the master that had a slot at first."""
        return next(master for master in self.masters if slot in self.slots_of(master))

    def is_ready(self) -> bool:
        """Whether every running node sees all slots served."""
        return all(self._is_well(node) for node in (*self.masters, *self.replicas) if node.running)

    def _is_well(self, node: Valkey) -> bool:
        with self.of(node) as client:
            said = client.cluster("INFO")
            return bool(said["cluster_state"] == "ok" and said["cluster_slots_ok"] == str(SLOTS))

    def _join(self, component: str) -> None:
        for number, node in enumerate((*self.masters, *self.replicas), start=1):
            with self.of(node) as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.masters[0].port)
                if node in self.masters:
                    client.execute_command("CLUSTER", "ADDSLOTS", *self.slots_of(node))
        wait_until(component, self.is_ready)
        for master, replica in zip(self.masters, self.replicas, strict=True):
            with self.of(master) as client:
                name = client.execute_command("CLUSTER", "MYID")
            wait_until(component, lambda replica=replica, name=name: self._follows(replica, name))  # type: ignore[misc]
        wait_until(component, self._is_replicated)

    def _follows(self, replica: Valkey, name: str) -> bool:
        with self.of(replica) as client:
            # Refused until it has heard of that master.
            return bool(client.execute_command("CLUSTER", "REPLICATE", name))

    def _is_replicated(self) -> bool:
        return all(self._replicates(replica) for replica in self.replicas) and self.is_ready()

    def _replicates(self, replica: Valkey) -> bool:
        with self.of(replica) as client:
            return bool(client.info("replication")["master_link_status"] == "up")
