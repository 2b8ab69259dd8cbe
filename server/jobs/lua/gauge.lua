-- KEYS: a model's queues. ARGV: group, consumer that holds what was handed back.
-- Returns {jobs that wait or run, jobs that no worker has, age in ms of the oldest of these or 0}.
local depth, held, oldest = 0, 0, now
local function look(entry)
  oldest = math.min(oldest, tonumber(string.match(entry, '^%d+')))
end
for _, key in ipairs(KEYS) do
  local jobs = redis.call('XLEN', key)
  depth = depth + jobs
  local delivered = '-'
  for _, group in ipairs(jobs > 0 and redis.call('XINFO', 'GROUPS', key) or {}) do
    local facts = {}
    for i = 1, #group, 2 do
      facts[group[i]] = group[i + 1]
    end
    if facts['name'] == ARGV[1] then
      delivered = '(' .. facts['last-delivered-id']
      held = held + facts['pending']
      local handed_back = redis.call('XPENDING', key, ARGV[1], '-', '+', 1000000, ARGV[2])
      held = held - #handed_back
      if handed_back[1] then
        look(handed_back[1][1])
      end
    end
  end
  local head = jobs > 0 and redis.call('XRANGE', key, delivered, '+', 'COUNT', 1)[1]
  if head then
    look(head[1])
  end
end
return {depth, math.max(0, depth - held), now - oldest}
