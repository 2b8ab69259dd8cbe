-- Joined in front of the scripts that look at the queues of a model, which they have in the order high, normal, low.
local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end

local function is_before(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

-- Id of the last entry that any worker was given, nil where there is no group yet.
local function last_delivered(queue, group)
  if redis.call('EXISTS', queue) == 0 then
    return nil
  end
  for _, facts in ipairs(redis.call('XINFO', 'GROUPS', queue)) do
    local named = {}
    for i = 1, #facts, 2 do
      named[facts[i]] = facts[i + 1]
    end
    if named['name'] == group then
      return named['last-delivered-id']
    end
  end
end

-- 1 is taken first. Every `aging` milliseconds of waiting count as one level more; the oldest of a level is next.
local function level(index, entry, aging)
  local ms = parts(entry)
  return math.max(1, index - math.floor(math.max(0, now - ms) / aging))
end

-- Calls visit(job id, entry, index, work left, is waiting, was begun before) for each job of the queues.
local function each_job(queues, group, visit)
  for index, queue in ipairs(queues) do
    local delivered = last_delivered(queue, group) or '0-0'
    for _, item in ipairs(redis.call('XRANGE', queue, '-', '+')) do
      local entry, id, work = item[1], item[2][2], tonumber(item[2][4]) or 0
      if is_before(delivered, entry) then
        visit(id, entry, index, work, true, false)
      else
        local facts = redis.call('HMGET', 'job:' .. id, 'done', 'state')
        visit(id, entry, index, math.max(0, work - (tonumber(facts[1]) or 0)), facts[2] == 'queued', true)
      end
    end
  end
end
