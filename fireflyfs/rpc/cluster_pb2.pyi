from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_ROLE_UNSPECIFIED: _ClassVar[NodeRole]
    STORAGE: _ClassVar[NodeRole]
    META: _ClassVar[NodeRole]

class TargetState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TARGET_STATE_UNSPECIFIED: _ClassVar[TargetState]
    SERVING: _ClassVar[TargetState]
    LASTSRV: _ClassVar[TargetState]
    SYNCING: _ClassVar[TargetState]
    WAITING: _ClassVar[TargetState]
    OFFLINE: _ClassVar[TargetState]

class TargetLocalState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TARGET_LOCAL_STATE_UNSPECIFIED: _ClassVar[TargetLocalState]
    LOCAL_UPTODATE: _ClassVar[TargetLocalState]
    LOCAL_ONLINE: _ClassVar[TargetLocalState]
    LOCAL_OFFLINE: _ClassVar[TargetLocalState]
NODE_ROLE_UNSPECIFIED: NodeRole
STORAGE: NodeRole
META: NodeRole
TARGET_STATE_UNSPECIFIED: TargetState
SERVING: TargetState
LASTSRV: TargetState
SYNCING: TargetState
WAITING: TargetState
OFFLINE: TargetState
TARGET_LOCAL_STATE_UNSPECIFIED: TargetLocalState
LOCAL_UPTODATE: TargetLocalState
LOCAL_ONLINE: TargetLocalState
LOCAL_OFFLINE: TargetLocalState

class NodeInfo(_message.Message):
    __slots__ = ("node_id", "role", "name", "generation", "addresses", "alive")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    role: NodeRole
    name: str
    generation: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    alive: bool
    def __init__(self, node_id: _Optional[int] = ..., role: _Optional[_Union[NodeRole, str]] = ..., name: _Optional[str] = ..., generation: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., alive: _Optional[bool] = ...) -> None: ...

class ChainTargetInfo(_message.Message):
    __slots__ = ("target_id", "node_id", "state")
    TARGET_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    target_id: int
    node_id: int
    state: TargetState
    def __init__(self, target_id: _Optional[int] = ..., node_id: _Optional[int] = ..., state: _Optional[_Union[TargetState, str]] = ...) -> None: ...

class ChainInfo(_message.Message):
    __slots__ = ("chain_id", "version", "targets")
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    chain_id: int
    version: int
    targets: _containers.RepeatedCompositeFieldContainer[ChainTargetInfo]
    def __init__(self, chain_id: _Optional[int] = ..., version: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[ChainTargetInfo, _Mapping]]] = ...) -> None: ...

class RoutingTable(_message.Message):
    __slots__ = ("cluster_id", "version", "nodes", "chains")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    version: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeInfo]
    chains: _containers.RepeatedCompositeFieldContainer[ChainInfo]
    def __init__(self, cluster_id: _Optional[str] = ..., version: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeInfo, _Mapping]]] = ..., chains: _Optional[_Iterable[_Union[ChainInfo, _Mapping]]] = ...) -> None: ...

class TargetReport(_message.Message):
    __slots__ = ("target_id", "state", "chain_version", "used_bytes", "capacity_bytes", "chunks", "reason", "sync_remaining", "disk")
    TARGET_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SYNC_REMAINING_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    target_id: int
    state: TargetLocalState
    chain_version: int
    used_bytes: int
    capacity_bytes: int
    chunks: int
    reason: str
    sync_remaining: int
    disk: str
    def __init__(self, target_id: _Optional[int] = ..., state: _Optional[_Union[TargetLocalState, str]] = ..., chain_version: _Optional[int] = ..., used_bytes: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., chunks: _Optional[int] = ..., reason: _Optional[str] = ..., sync_remaining: _Optional[int] = ..., disk: _Optional[str] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("cluster_id", "node_id", "generation", "role", "name", "addresses", "targets")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    node_id: int
    generation: int
    role: NodeRole
    name: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    targets: _containers.RepeatedCompositeFieldContainer[TargetReport]
    def __init__(self, cluster_id: _Optional[str] = ..., node_id: _Optional[int] = ..., generation: _Optional[int] = ..., role: _Optional[_Union[NodeRole, str]] = ..., name: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., targets: _Optional[_Iterable[_Union[TargetReport, _Mapping]]] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("routing_version", "lease_seconds")
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    routing_version: int
    lease_seconds: float
    def __init__(self, routing_version: _Optional[int] = ..., lease_seconds: _Optional[float] = ...) -> None: ...

class GetRoutingRequest(_message.Message):
    __slots__ = ("cluster_id", "known_version", "wait_seconds")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    KNOWN_VERSION_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    known_version: int
    wait_seconds: float
    def __init__(self, cluster_id: _Optional[str] = ..., known_version: _Optional[int] = ..., wait_seconds: _Optional[float] = ...) -> None: ...

class GetRoutingReply(_message.Message):
    __slots__ = ("routing",)
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    routing: RoutingTable
    def __init__(self, routing: _Optional[_Union[RoutingTable, _Mapping]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("cluster_id", "role", "name", "targets")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    role: NodeRole
    name: str
    targets: int
    def __init__(self, cluster_id: _Optional[str] = ..., role: _Optional[_Union[NodeRole, str]] = ..., name: _Optional[str] = ..., targets: _Optional[int] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("node_id", "target_ids", "was_heard")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_IDS_FIELD_NUMBER: _ClassVar[int]
    WAS_HEARD_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    target_ids: _containers.RepeatedScalarFieldContainer[int]
    was_heard: bool
    def __init__(self, node_id: _Optional[int] = ..., target_ids: _Optional[_Iterable[int]] = ..., was_heard: _Optional[bool] = ...) -> None: ...

class CreateChainsRequest(_message.Message):
    __slots__ = ("cluster_id", "replicas")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    replicas: int
    def __init__(self, cluster_id: _Optional[str] = ..., replicas: _Optional[int] = ...) -> None: ...

class CreateChainsReply(_message.Message):
    __slots__ = ("chain_ids",)
    CHAIN_IDS_FIELD_NUMBER: _ClassVar[int]
    chain_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, chain_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("cluster_id",)
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    def __init__(self, cluster_id: _Optional[str] = ...) -> None: ...

class TargetStatus(_message.Message):
    __slots__ = ("target", "report")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    target: ChainTargetInfo
    report: TargetReport
    def __init__(self, target: _Optional[_Union[ChainTargetInfo, _Mapping]] = ..., report: _Optional[_Union[TargetReport, _Mapping]] = ...) -> None: ...

class ChainStatus(_message.Message):
    __slots__ = ("chain_id", "version", "targets", "last_change")
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    LAST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    chain_id: int
    version: int
    targets: _containers.RepeatedCompositeFieldContainer[TargetStatus]
    last_change: str
    def __init__(self, chain_id: _Optional[int] = ..., version: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[TargetStatus, _Mapping]]] = ..., last_change: _Optional[str] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "seconds_since_heartbeat")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    node: NodeInfo
    seconds_since_heartbeat: float
    def __init__(self, node: _Optional[_Union[NodeInfo, _Mapping]] = ..., seconds_since_heartbeat: _Optional[float] = ...) -> None: ...

class GetStatusReply(_message.Message):
    __slots__ = ("routing_version", "nodes", "chains")
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    routing_version: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    chains: _containers.RepeatedCompositeFieldContainer[ChainStatus]
    def __init__(self, routing_version: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., chains: _Optional[_Iterable[_Union[ChainStatus, _Mapping]]] = ...) -> None: ...
