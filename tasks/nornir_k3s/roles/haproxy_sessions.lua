-- Managed by nornir-k3s. Shuts the sessions of a server that is down, so that clients connect to another one: only while
-- another is well. Where all are slow, or their datastore is away, no other would serve a session better.

local EVERY = 250 -- milliseconds
-- Seconds after which a state counts: when all go or come back, one is always the first.
local SETTLED = tonumber(os.getenv("K3S_SETTLED"))

local function is(state, stats)
  return stats.status:sub(1, #state) == state and tonumber(stats.lastchg) >= SETTLED
end

local function passes(stats)
  return tonumber(stats.check_health) == tonumber(stats.check_rise) + tonumber(stats.check_fall) - 1
end

local function look()
  local down, others = {}, false
  for name, server in pairs(core.backends["checks"].servers) do
    local stats = server:get_stats()
    if is("DOWN", stats) then
      down[#down + 1] = name
    end
    others = others or (is("UP", stats) and passes(stats))
  end
  for _, name in ipairs(others and down or {}) do
    for _, backend in ipairs({ "servers", "all" }) do
      core.backends[backend].servers[name]:shut_sess()
    end
  end
end

core.register_task(function()
  while true do
    core.msleep(EVERY)
    look()
  end
end)
