"""What stands beside the counts: which tools were called, in which service tier, and what the provider says that it cost."""

from decimal import Decimal

from ..tokens import MAX_TOOLS, MOST, Extras
from .counts import amount, part
from .events import Body, bodies, holders_of

USUAL_TIERS = {"", "auto", "default", "standard", "standard_only", "on_demand", "on-demand", "unspecified"}
"""What providers call the tier that everybody is in."""
_TRAFFIC = {"ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex"}
"""Vertex's types of traffic that cost something else."""
_ITEMS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_execution",
    "image_generation_call": "image_generation",
}
"""OpenAI's Responses: what an item of the output is a call of."""
_WITHIN_A_PAGE = ("open_page", "find_in_page", "find")
"""What a web_search_call may do besides searching, which costs nothing."""
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


def beside(events: list[Body]) -> Extras:
    """What all the events say besides counts of tokens: the most calls that one of them tells of each tool, the last
    service tier, the last cost."""
    tools: dict[str, int] = {}
    tier: str | None = None
    usd: Decimal | None = None
    for event in events:
        for holder in holders_of(event):
            for usage in bodies(holder.get(key) for key in ("usage", "usageMetadata")):
                stated = _cost(usage)
                tier, usd = _tier(usage) or tier, usd if stated is None else stated
                for name, tool in _STATED.items():
                    tools[tool] = max(tools.get(tool, 0), part(usage, name))
            tier = _tier(holder) or tier
            for tool, calls in _called(holder).items():
                tools[tool] = max(tools.get(tool, 0), calls)
    named = sorted((tool, min(calls, MOST)) for tool, calls in tools.items() if calls)
    return Extras(tools=tuple(named[:MAX_TOOLS]), service_tier=tier, upstream_usd=usd)


def _tier(holder: Body) -> str | None:
    """The service tier that an object names, where it isn't the usual one."""
    name = holder.get("service_tier") or holder.get("serviceTier") or _TRAFFIC.get(str(holder.get("trafficType")))
    if isinstance(name, dict):  # Bedrock
        name = name.get("type")
    name = name.strip().lower() if isinstance(name, str) else ""
    return name if name not in USUAL_TIERS and len(name) <= 100 and name.isprintable() else None


def _cost(usage: Body) -> Decimal | None:
    """What the provider asks, in US dollars: OpenRouter, Perplexity, xAI."""
    stated = usage.get("cost")
    if isinstance(stated, dict):
        return amount(stated.get("total_cost"))
    cost = amount(stated)
    if cost is None:
        ticks = amount(usage.get("cost_in_usd_ticks"))
        return None if ticks is None else ticks / TICKS_PER_USD
    details = usage.get("cost_details")
    if usage.get("is_byok") is True and isinstance(
        details, dict
    ):  # OpenRouter's fee; the maker asks for the rest itself
        cost += amount(details.get("upstream_inference_cost")) or 0
    return cost


def _called(holder: Body) -> dict[str, int]:
    """The calls of tools that an answer shows."""
    tools: dict[str, int] = {}
    items, candidates = holder.get("output"), holder.get("candidates")
    for item in bodies(items if isinstance(items, list) else []):
        tool, action = _ITEMS.get(str(item.get("type"))), item.get("action")
        if tool and not (isinstance(action, dict) and action.get("type") in _WITHIN_A_PAGE):
            tools[tool] = tools.get(tool, 0) + 1
    for candidate in bodies(candidates if isinstance(candidates, list) else []):
        grounding = candidate.get("groundingMetadata")
        queries = grounding.get("webSearchQueries") if isinstance(grounding, dict) else None
        if isinstance(queries, list) and queries:
            # Up to Gemini 2.5 a prompt that is grounded is charged for, from Gemini 3 on each query.
            by_prompt = str(holder.get("modelVersion")).startswith(("gemini-1", "gemini-2"))
            tools["web_search"] = max(tools.get("web_search", 0), 1 if by_prompt else len(queries))
    return tools
