"""What stands beside the counts: which tools were called, in which service tier, and what the provider says that it cost."""

import re
from collections import Counter
from collections.abc import Hashable, Iterator
from decimal import Decimal

from ..tokens import MAX_TOOLS, MOST, Extras, tier_named
from .counts import amount, count, part
from .events import Body, bodies, holders_of, inner, listed, word

_TRAFFIC = {
    "ON_DEMAND": "default",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "PROVISIONED_THROUGHPUT": "provisioned",
}
"""Vertex's types of traffic."""
_ITEMS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_execution",
    "image_generation_call": "image_generation",
}
"""OpenAI's Responses: what an item of the output is a call of."""
_WITHIN_A_PAGE = ("open_page", "find_in_page", "find")
"""What a web_search_call may do besides searching, which costs nothing."""
_EXECUTED = {"search": "web_search", "visit": "web_fetch", "python": "code_execution"}
"""Groq: the type of an executed tool."""
_SERVER_SIDE = {
    "WEB_SEARCH": "web_search",
    "X_SEARCH": "x_search",
    "CODE_EXECUTION": "code_execution",
    "COLLECTIONS_SEARCH": "file_search",
    "ATTACHMENT_SEARCH": "attachment_search",
    "MCP": "mcp",
}
"""xAI: the name of a server-side tool."""
_STATED = {
    "server_tool_use.web_search_requests": "web_search",
    "server_tool_use.web_fetch_requests": "web_fetch",
    "server_tool_use.code_execution_requests": "code_execution",
    "server_tool_use_details.web_search_requests": "web_search",
    "server_side_tool_usage_details.web_search_calls": "web_search",
    "server_side_tool_usage_details.x_search_calls": "x_search",
    "server_side_tool_usage_details.code_interpreter_calls": "code_execution",
    "server_side_tool_usage_details.file_search_calls": "file_search",
    "server_side_tool_usage_details.document_search_calls": "document_search",
    "server_side_tool_usage_details.mcp_calls": "mcp",
    "num_sources_used": "live_search",
    "num_search_queries": "web_search",
}
"""Where usage counts the calls of a tool: Anthropic, OpenRouter, xAI, Perplexity."""
TICKS_PER_USD = 10**10
"""In which xAI counts what it asks: docs.x.ai, Cost Tracking."""


def beside(events: list[Body]) -> tuple[Extras, bool]:
    """What all the events say besides counts of tokens: of each tool the calls that usage states, else those that the
    answer shows, each of them once however often it is sent; the last service tier; the last cost. And whether they name a
    service tier, the usual one included."""
    stated: dict[str, int] = {}
    shown: dict[str, set[Hashable]] = {}
    tier: str | None = None
    usd: Decimal | None = None
    for event in events:
        for holder in holders_of(event):
            for usage in bodies(holder.get(key) for key in ("usage", "usageMetadata")):
                cost = _cost(usage)
                tier, usd = _tier(usage, tier), usd if cost is None else cost
                for tool, calls in _stated(usage):
                    stated[tool] = max(stated.get(tool, 0), calls)
            tier = _tier(holder, tier)
            searches = part(holder, "tool_usage.web_search.num_requests")  # OpenAI's Responses
            stated["web_search"] = max(stated.get("web_search", 0), searches)
            for tool, call in _shown(holder):
                shown.setdefault(tool, set()).add(call)
    tools = {tool: stated.get(tool) or len(shown.get(tool, ())) for tool in stated.keys() | shown.keys()}
    named = sorted((tool, min(calls, MOST)) for tool, calls in tools.items() if calls)
    return Extras(tools=tuple(named[:MAX_TOOLS]), service_tier=tier or None, upstream_usd=usd), tier is not None


def _tier(holder: Body, before: str | None) -> str | None:
    """The service tier that an object names, "" for the usual one; `before` where it names none. The last one counts: what
    was asked for may be busy, and the call served in another."""
    named = holder.get("service_tier") or holder.get("serviceTier") or _TRAFFIC.get(word(holder.get("trafficType")))
    if holder.get("speed") == "fast":  # Anthropic, beside the usual tier
        named = "fast"
    name = word(named.get("type") if isinstance(named, dict) else named).strip()  # an object: Bedrock's
    return tier_named(name) or "" if 1 <= len(name) <= 100 and name.isprintable() else before


def _cost(usage: Body) -> Decimal | None:
    """What the provider asks, in US dollars: OpenRouter, Perplexity, xAI."""
    stated = usage.get("cost")
    if isinstance(stated, dict):
        return amount(stated.get("total_cost"))
    cost = amount(stated)
    if cost is None:
        given = usage.get("cost_in_usd_ticks")
        if isinstance(given, str) and re.fullmatch("[0-9]{1,18}", given):  # as protobuf writes whole numbers in JSON
            given = int(given)
        ticks = amount(given)
        return None if ticks is None else ticks / TICKS_PER_USD
    if usage.get("is_byok") is True:  # OpenRouter's fee; the maker asks for the rest itself
        cost += amount(inner(usage, "cost_details.upstream_inference_cost")) or 0
    return cost


def _stated(usage: Body) -> Iterator[tuple[str, int]]:
    """The calls of tools that usage counts."""
    for name, tool in _STATED.items():
        yield tool, part(usage, name)
    used = usage.get("server_side_tools_used")  # xAI: its name of the tool for each call
    for used_name, calls in Counter(map(word, used if isinstance(used, list) else [])).items():
        if called := _SERVER_SIDE.get(used_name.removeprefix("SERVER_SIDE_TOOL_")):
            yield called, calls


def _shown(holder: Body) -> Iterator[tuple[str, Hashable]]:
    """The calls of tools that an answer shows, and what tells each from the others."""
    for place, item in enumerate(listed(holder, "output")):
        tool = _ITEMS.get(word(item.get("type")))
        if tool and inner(item, "action.type") not in _WITHIN_A_PAGE:
            yield tool, place
    for key in ("message", "delta"):
        for place, call in enumerate(listed(holder, f"{key}.executed_tools")):
            if tool := _EXECUTED.get(word(call.get("type"))):  # a stream shows each when it begins and when it ends
                index = count(call.get("index"))
                yield tool, place if index is None else index
    # Up to Gemini 2.5 a prompt that is grounded is charged for, from Gemini 3 on each query: once, and not the empty ones.
    by_prompt = word(holder.get("modelVersion")).startswith(("gemini-1", "gemini-2"))
    for candidate in listed(holder, "candidates"):
        found = [inner(candidate, "groundingMetadata.webSearchQueries")]
        for call in bodies(each.get("toolCall") for each in listed(candidate, "content.parts")):
            if call.get("toolType") == "GOOGLE_SEARCH_WEB":
                found.append(inner(call, "args.queries"))
        for query in (query for queries in found if isinstance(queries, list) for query in queries):
            if isinstance(query, str) and query.strip():
                yield "web_search", "" if by_prompt else query
