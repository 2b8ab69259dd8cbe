-- KEYS: a model's queues.
-- Returns {jobs that wait or run, jobs that no worker has, age in ms of the oldest of these or 0}.
local depth, held, oldest = 0, 0, now
local function look(entry)
  oldest = math.min(oldest, tonumber(string.match(entry, '^%d+')))
end
for _, queue in ipairs(KEYS) do
  local jobs = redis.call('XLEN', queue)
  depth = depth + jobs
  local delivered = '-'
  for _, group in ipairs(jobs > 0 and redis.call('XINFO', 'GROUPS', queue) or {}) do
    local facts = {}
    for i = 1, #group, 2 do
      facts[group[i]] = group[i + 1]
    end
    if facts['name'] == GROUP then
      delivered = '(' .. facts['last-delivered-id']
      held = held + facts['pending']
      local handed_back = redis.call('XPENDING', queue, GROUP, '-', '+', 1000000, RELEASED)
      held = held - #handed_back
      if handed_back[1] then
        look(handed_back[1][1])
      end
    end
  end
  local head = jobs > 0 and redis.call('XRANGE', queue, delivered, '+', 'COUNT', 1)[1]
  if head then
    look(head[1])
  end
end
return {depth, math.max(0, depth - held), now - oldest}
