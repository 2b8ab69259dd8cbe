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

-- Id of the last entry that any worker was given, nil where there is no group yet; and how many of these are still there.
local function last_delivered(queue)
  if redis.call('EXISTS', queue) == 0 then
    return nil, 0
  end
  for _, facts in ipairs(redis.call('XINFO', 'GROUPS', queue)) do
    local named = {}
    for i = 1, #facts, 2 do
      named[facts[i]] = facts[i + 1]
    end
    if named['name'] == GROUP then
      return named['last-delivered-id'], named['pending']
    end
  end
  return nil, 0
end

-- 1 is taken first. Every `aging` milliseconds of waiting count as one level more; the oldest of a level is next.
local function level(index, entry, aging)
  local ms = parts(entry)
  return math.max(1, index - math.floor(math.max(0, now - ms) / aging))
end

-- Calls visit(job id, entry, work left, is waiting again) for each job of a queue that a worker was given.
local function each_begun(queue, delivered, visit)
  for _, item in ipairs(redis.call('XRANGE', queue, '-', delivered)) do
    local entry, id, work = item[1], item[2][2], tonumber(item[2][4]) or 0
    local facts = redis.call('HMGET', job_key(id), 'done', 'state')
    visit(id, entry, math.max(0, work - (tonumber(facts[1]) or 0)), facts[2] == 'queued')
  end
end

-- How many entries are looked at from each end of a queue: a look at a long queue must not hold up everybody.
local SEEN = 128

local function sum_of_work(items)
  local work = 0
  for _, item in ipairs(items) do
    work = work + (tonumber(item[2][4]) or 0)
  end
  return work
end

-- Jobs of a queue that no worker was given yet, before the id `bound` ('+': all): how many, and their row-steps.
-- Exact where few are before `bound`. Where many are, their work is that of the average job at both ends; how many they
-- are is exact where few are behind, too, and in the midst of a long queue taken from the time that they came.
local function new_before(queue, delivered, pending, bound)
  local first = redis.call('XRANGE', queue, '(' .. delivered, bound == '+' and '+' or '(' .. bound, 'COUNT', SEEN)
  local work = sum_of_work(first)
  if #first < SEEN then
    return #first, work
  end
  local last = redis.call('XREVRANGE', queue, '+', bound == '+' and '-' or bound, 'COUNT', SEEN)
  local mean = (work + sum_of_work(last)) / (SEEN + #last)
  local total = redis.call('XLEN', queue) - pending
  local count = total
  if bound ~= '+' and #last < SEEN then
    count = total - #last
  elseif bound ~= '+' then
    local from, to, at = parts(first[SEEN][1]), parts(last[SEEN][1]), parts(bound)
    local share = to > from and (at - from) / (to - from) or 0.5
    count = math.floor(SEEN + share * (total - 2 * SEEN) + 0.5)
  end
  return count, math.floor(count * mean + 0.5)
end

-- Row-steps that are left of all jobs of the queues; see new_before.
local function work_left(queues)
  local left = 0
  for _, queue in ipairs(queues) do
    local delivered, pending = last_delivered(queue)
    delivered = delivered or '0-0'
    each_begun(queue, delivered, function(_, _, work)
      left = left + work
    end)
    local _, work = new_before(queue, delivered, pending, '+')
    left = left + work
  end
  return left
end
